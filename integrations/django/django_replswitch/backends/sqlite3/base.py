"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch.drivers import load_driver


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's SQLite connection, on a master and its slaves."""

    _driver = load_driver("sqlite3")
    _changes = 0

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the selected file; a slave's so that SQLite refuses writes (S7)."""
        connection = super().get_new_connection(conn_params)
        if self._is_slave:
            connection.execute("PRAGMA query_only = ON").close()
        else:
            self._changes = connection.total_changes
        return connection

    def _rollback(self) -> None:
        super()._rollback()
        connection = self._connection_of(self._master)
        if connection is not None:
            self._changes = connection.total_changes

    def _shares_link(self) -> bool:
        return self.is_in_memory_db()

    def _take_written(self, connection: Any, *, in_transaction: bool, has_rows: bool = False) -> bool | None:
        if connection.in_transaction:
            return False
        seen, self._changes = self._changes, connection.total_changes
        return seen != self._changes

    def is_refused_write(self, error: BaseException) -> bool:
        """Look at the error's code."""
        return self._driver.refused_write(error)

    def _is_unreachable(self, error: BaseException) -> bool:
        return self._driver.unreachable(error)
