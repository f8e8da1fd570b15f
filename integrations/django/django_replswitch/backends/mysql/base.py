"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from django.utils.asyncio import async_unsafe

from django_replswitch.backends.mysql import driver  # noqa: F401 - before the next line

from django.db.backends.mysql import base  # isort: skip
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch.drivers import Driver, load_driver, mysql
from replswitch.state import stack

READ_ONLY = "SET SESSION TRANSACTION READ ONLY"


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's MySQL connection, on a master and its slaves."""

    # PyMySQL shows what the server says of a commit; mysqlclient keeps it to itself.
    _driver: Driver | None = load_driver("pymysql") if base.DatabaseWrapper.Database.__name__ == "pymysql" else None

    _tells_of_writes = _driver is not None
    _last_gtid: str | None = ""  # None: it has moved, and nobody has asked

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server; to a slave read-only in the database (S7)."""
        if self._driver is not None:
            return self._driver.open(conn_params, read_only=self._is_slave)
        if not self._is_slave:
            self._last_gtid = ""
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

    def _take_written(self, connection: Any, *, in_transaction: bool, has_rows: bool = False) -> bool | None:
        if self._driver is not None:
            return self._driver.take_written(connection)
        if in_transaction:
            return False
        frame = stack()
        if not has_rows or frame is None or not frame.scope.is_safe:
            self._last_gtid = None  # nobody is going to ask in time
        return None if has_rows else True  # nothing tells, and on MariaDB an INSERT may return rows

    def before_doubt(self) -> None:
        """Know the position before a statement whose driver will not tell whether it wrote."""
        if self._driver is None and self._last_gtid is None:
            self._last_gtid = self._position()[0]

    def settle(self) -> None:
        """Ask the master for the position of this session's latest write: once a request, and only in doubt."""
        if self._driver is None and self._connection_of(self._master) is not None:
            before = self._last_gtid
            self._last_gtid, is_told = self._position()
            if before != self._last_gtid or not is_told:
                self._record(written=True)

    def _position(self) -> tuple[str, bool]:
        """Return the session's latest GTID, and whether every write moves it.

        On MySQL there is no such variable, and no statement that returns rows has written.
        """
        with self._on(self._master), self.wrap_database_errors, closing(self.create_link_cursor(None)) as cursor:
            cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('last_gtid', 'log_bin', 'wsrep_on')")
            variables = dict(cursor.fetchall())
        is_told = variables.get("log_bin") == "ON" and variables.get("wsrep_on") != "ON"
        return variables.get("last_gtid", ""), is_told or "last_gtid" not in variables

    def is_refused_write(self, error: BaseException) -> bool:
        """Look at the error's code."""
        return mysql.refused_write(error)

    def _is_unreachable(self, error: BaseException) -> bool:
        return mysql.unreachable(error)
