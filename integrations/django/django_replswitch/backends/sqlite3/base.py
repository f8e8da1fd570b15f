"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import base
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch import MASTER, SLAVE
from replswitch.drivers.sqlite3 import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.drivers import Raw
    from replswitch.engine.servers import Link


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
        """Open the selected file. If it is a slave's, SQLite refuses writes (S7)."""
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
        """Leave out the parameters that the driver sets itself."""
        params = super().stock_parameters(settings)
        del params["check_same_thread"]
        name = params["database"]
        if not (self.creation.is_in_memory_db(name) or str(name).startswith("file:")):
            del params["uri"]  # our driver then does not create a file that does not exist
        return params

    def close(self) -> None:
        """Close the links, except the one to a database in memory, which would be lost."""
        if self.is_in_memory_db():
            self.validate_thread_sharing()
            if not (self._is_direct or self.in_atomic_block):
                self._forget_block()
        else:
            super().close()
