"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch.drivers.sqlite3 import DRIVER


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's SQLite connection, on a master and its slaves."""

    driver = DRIVER
    stock = base.DatabaseWrapper

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the selected file; a slave's so that SQLite refuses writes (S7)."""
        connection = super().get_new_connection({**conn_params, "factory": DRIVER.factory})
        DRIVER.adopt(connection, read_only=self._is_slave)
        return connection

    def _shares_link(self) -> bool:
        return self.is_in_memory_db()
