"""The backend that ``ENGINE`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import IntegrityError
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.mysql import driver  # noqa: F401 - before the next line

from django.db.backends.mysql import base  # isort: skip
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch import SLAVE
from replswitch.drivers import load_driver

if TYPE_CHECKING:
    from replswitch.engine.servers import Link, Server


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's MySQL connection, on a master and its slaves."""

    driver = load_driver("pymysql" if base.DatabaseWrapper.Database.__name__ == "pymysql" else "mysqlclient")
    stock = base.DatabaseWrapper

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server. On a slave, the database makes the connection read-only (S7)."""
        return self.driver.open(conn_params, read_only=self._server.state == SLAVE)

    def parameters_for_report(self, server: Server) -> dict[str, Any]:
        """Leave the database's name out: in a test run, a slave may not have the database yet."""
        return {name: value for name, value in super().parameters_for_report(server).items() if name != "database"}

    def begin_on(self, link: Link) -> None:
        """Turn autocommit off."""
        link.raw.autocommit(False)

    def raise_as_stock(self, error: Exception) -> None:
        """Raise IntegrityError where Django's own cursor does. That cursor is not in use here."""
        codes = base.CursorWrapper.codes_for_integrityerror
        if isinstance(error, self.Database.OperationalError) and error.args[0] in codes:
            raise IntegrityError(*error.args) from error
