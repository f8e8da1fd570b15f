"""The ``DatabaseWrapper`` of the MySQL backend, in the module in which Django looks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import IntegrityError
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.mysql import driver  # noqa: F401 - must come before the next line

from django.db.backends.mysql import base  # isort: skip
from django_replswitch.backends.wrapper import SwitchingWrapper
from replswitch import SLAVE
from replswitch.drivers import load_driver

if TYPE_CHECKING:
    from django_replswitch.backends.link import WrapperLink
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
        """Return the parameters without the database's name, which a slave may not have yet in a test run."""
        return {name: value for name, value in super().parameters_for_report(server).items() if name != "database"}

    def begin_on(self, link: Link) -> None:
        """Turn autocommit off, so that the next statement begins the transaction."""
        link.raw.autocommit(False)

    def raise_as_stock(self, error: Exception) -> None:
        """Raise IntegrityError for the same error codes as Django's own cursor, which replswitch does not use."""
        codes = base.CursorWrapper.codes_for_integrityerror
        if isinstance(error, self.Database.OperationalError) and error.args[0] in codes:
            raise IntegrityError(*error.args) from error

    def view_of_transaction(self, server: Server) -> WrapperLink:
        """Open a read-only link that sees what the open transaction has written; see `production_routing`."""
        link = self._connect(server)
        with self._on(link):
            self._execute_quietly(["SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"])
        return link
