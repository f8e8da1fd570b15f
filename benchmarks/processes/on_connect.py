"""One side: replswitch.connect() and the WSGI middleware, around a plain WSGI application."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import replswitch
from processes.pages import REASONS, SECRET, Pages
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from processes.pages import Values


class Connected:
    """See `processes.pages.Base`."""

    def __init__(self, db: replswitch.Connection) -> None:
        self._db = db

    def rows(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        """Read."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute(sql, values)
            return [tuple(row) for row in cursor.fetchall()]

    def write(self, sql: str, values: Values) -> None:
        """Write, and commit."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute(sql, values)

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""
        return self._db.use_master()

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""
        return self._db.use_slave()


def make(settings: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        settings: ``driver``, ``master``, ``slaves``.
    """
    pages = Pages(Connected(replswitch.connect(settings["master"], settings["slaves"], driver=settings["driver"])))
    pages.open_links()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        values = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        answer = pages.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], values)
        start_response(f"{answer.status} {REASONS[answer.status]}", answer.headers)
        return [answer.body]

    return ReplicationMiddleware(application, secret=SECRET)
