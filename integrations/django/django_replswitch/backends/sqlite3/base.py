"""The ``DatabaseWrapper`` of the SQLite backend, in the module in which Django looks for it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import base
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.in_test_case import guarded_link
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch import MASTER, SLAVE
from replswitch.drivers.sqlite3 import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_replswitch.backends.link import WrapperLink
    from replswitch.drivers import Raw
    from replswitch.engine.servers import Link, Server


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's SQLite connection, on a master and its slaves."""

    driver = DRIVER
    stock = base.DatabaseWrapper

    @property
    def one_link(self) -> bool:  # type: ignore[override]  # a test run changes it
        """Whether the database is in memory. A second link would then open another, empty database."""
        return bool(self.is_in_memory_db())

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the file of the selected server. On a slave's file, SQLite refuses writes (S7)."""
        connection = super().get_new_connection({**conn_params, "factory": DRIVER.factory})
        DRIVER.prepare(connection, read_only=self._server.state == SLAVE)
        return connection

    def cursor_maker(self, raw: Raw) -> Callable[[], Any]:
        """Return the function that makes Django's own cursor on a connection."""
        return partial(raw.cursor, factory=base.SQLiteCursorWrapper)

    def begin_on(self, link: Link) -> None:
        """Send BEGIN, as Django does in its atomic blocks, unless the application has already sent it."""
        mode = getattr(self, "transaction_mode", None) if link.server.state == MASTER else None
        if not link.raw.in_transaction:
            link.raw.execute(f"BEGIN {mode or ''}").close()

    def stock_parameters(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the connection parameters without those that the driver sets itself."""
        params = super().stock_parameters(settings)
        del params["check_same_thread"]
        name = params["database"]
        if not (self.creation.is_in_memory_db(name) or str(name).startswith("file:")):
            del params["uri"]  # without it, our driver does not create a missing file
        return params

    def close(self) -> None:
        """Close the links, except the one to a database in memory, which would be lost."""
        if self.is_in_memory_db():
            self.validate_thread_sharing()
            if not (self._is_direct or self.in_atomic_block):
                self._forget_block()
        else:
            super().close()

    def close_if_unusable_or_obsolete(self) -> None:
        """Do what the base class does, but never close the link to a database in memory."""
        if not self.is_in_memory_db():
            super().close_if_unusable_or_obsolete()

    def view_of_transaction(self, server: Server) -> WrapperLink:
        """Return a link that sees what the open transaction has written; see `production_routing`."""
        return guarded_link(self, server, _refusing_writes)


@contextmanager
def _refusing_writes(raw: Raw) -> Iterator[None]:
    raw.execute("PRAGMA query_only = ON").close()
    try:
        yield
    finally:
        raw.execute("PRAGMA query_only = OFF").close()
