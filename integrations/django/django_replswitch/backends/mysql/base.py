"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from typing import Any

from django.utils.asyncio import async_unsafe

from django_replswitch.backends.mysql import driver  # noqa: F401 - before the next line

from django.db.backends.mysql import base  # isort: skip
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch.drivers import load_driver


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's MySQL connection, on a master and its slaves."""

    driver = load_driver("pymysql" if base.DatabaseWrapper.Database.__name__ == "pymysql" else "mysqlclient")
    stock = base.DatabaseWrapper

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server; to a slave read-only in the database (S7)."""
        return self.driver.open(conn_params, read_only=self._is_slave)

    def create_link_cursor(self, name: str | None) -> Any:
        """Return a cursor of the driver's own; what Django's would do, `error_of_stock` does."""
        return self.connection.cursor()

    def error_of_stock(self, error: Exception) -> Exception:
        """Return what Django's own cursor makes of an error."""
        traceback = error.__traceback__
        try:
            base.CursorWrapper(_Failed(error)).execute("")
        except Exception as made:  # noqa: BLE001 - whatever it is, it is what Django would raise
            error.with_traceback(traceback)  # or it would hold frames that hold it
            return made
        return error

    def is_usable(self) -> bool:
        """Ping, and never reconnect: what PyMySQL would open is another session."""
        if self.Database.__name__ != "pymysql":
            return bool(super().is_usable())
        try:
            self.connection.ping(reconnect=False)
        except self.Database.Error:
            return False
        return True


class _Failed:
    """Stands for the driver's cursor, and has failed already.

    Args:
        error: how.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def execute(self, *_: Any) -> None:
        """Raise the error."""
        raise self._error
