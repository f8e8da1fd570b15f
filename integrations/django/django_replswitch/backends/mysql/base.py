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
    from collections.abc import Callable

    from django_replswitch.backends.links import WrapperLink
    from replswitch.drivers import Raw
    from replswitch.engine.servers import Server


class DatabaseWrapper(SwitchingWrapper, base.DatabaseWrapper):
    """Django's MySQL connection, on a master and its slaves."""

    driver = load_driver("pymysql" if base.DatabaseWrapper.Database.__name__ == "pymysql" else "mysqlclient")
    stock = base.DatabaseWrapper

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server; to a slave read-only in the database (S7)."""
        return self.driver.open(conn_params, read_only=self._server.state == SLAVE)

    def parameters_for_report(self, server: Server) -> dict[str, Any]:
        """Leave the database out: in a test run a slave may not have it yet."""
        return {name: value for name, value in super().parameters_for_report(server).items() if name != "database"}

    def begin_on(self, link: WrapperLink) -> None:
        """Turn autocommit off."""
        if link.autocommit:
            link.raw.autocommit(False)
            link.autocommit = False

    def cursor_maker(self, raw: Raw) -> Callable[[], Any]:
        """Let the driver make its own; what Django's cursor does besides, `raise_as_stock` does."""
        maker: Callable[[], Any] = raw.cursor
        return maker

    def raise_as_stock(self, error: Exception) -> None:
        """Raise IntegrityError where Django's own cursor does."""
        codes = base.CursorWrapper.codes_for_integrityerror
        if isinstance(error, self.Database.OperationalError) and error.args[0] in codes:
            raise IntegrityError(*error.args) from error
