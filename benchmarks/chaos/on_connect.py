"""One side of the chaos run: replswitch.connect() and the WSGI middleware, around a plain WSGI application."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import replswitch
from chaos.server import SECRET, plain_application
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication


class Base:
    """See `chaos.pages.Base`."""

    def __init__(self, db: replswitch.Connection) -> None:
        self._db = db
        self.error: type[BaseException] = db.Error

    def cursor(self) -> Any:
        """Return a cursor."""
        return self._db.cursor()

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""
        return self._db.use_master()

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""
        return self._db.use_slave()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction; commit it, or roll it back."""
        self._db.begin()
        try:
            yield
            self._db.commit()
        except BaseException:
            self._db.rollback()
            raise


def application(settings: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        settings: ``master``, ``slaves``, ``driver``, and the options of the database and of requests.
    """
    db = replswitch.connect(
        master=settings["master"], slaves=settings["slaves"], driver=settings["driver"], **settings["database"]
    )
    return ReplicationMiddleware(plain_application(Base(db)), secret=SECRET, **settings["request"])
