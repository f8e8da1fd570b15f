"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from typing import Any

from django.utils.asyncio import async_unsafe

from django_replswitch.backends.mysql import driver  # noqa: F401 - before the next line

from django.db.backends.mysql import base  # isort: skip
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch.drivers import Driver, load_driver, mysql

READ_ONLY = "SET SESSION TRANSACTION READ ONLY"


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's MySQL connection, on a master and its slaves."""

    # PyMySQL shows what the server says of a commit; mysqlclient keeps it to itself.
    _driver: Driver | None = load_driver("pymysql") if base.DatabaseWrapper.Database.__name__ == "pymysql" else None

    _tells_of_writes = _driver is not None

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server; to a slave read-only in the database (S7)."""
        if self._driver is not None:
            return self._driver.open(conn_params, read_only=self._is_slave)
        if not self._is_slave:
            return super().get_new_connection(conn_params)
        if "init_command" not in conn_params:
            return super().get_new_connection({**conn_params, "init_command": READ_ONLY})
        connection = super().get_new_connection(conn_params)
        connection.query(READ_ONLY)
        return connection

    def is_usable(self) -> bool:
        """Ping, and never reconnect: what PyMySQL would open is another session."""
        if self._driver is None:
            return bool(super().is_usable())
        try:
            self.connection.ping(reconnect=False)
        except self.Database.Error:
            return False
        return True

    def _take_written(self, connection: Any, *, in_transaction: bool) -> bool:
        if self._driver is None:  # nothing tells: every statement counts
            return not in_transaction
        return self._driver.take_written(connection)

    def _is_refused_write(self, error: BaseException) -> bool:
        return mysql.refused_write(error)

    def _is_unreachable(self, error: BaseException) -> bool:
        return mysql.unreachable(error)
