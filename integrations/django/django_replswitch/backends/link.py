"""One physical connection of Django's connection object: `WrapperLink`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.engine.servers import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Server

#: The attributes of Django's ``BaseDatabaseWrapper`` that describe one physical connection, with their values while
#: there is no connection. All others describe the database: settings, transactions, savepoints, the log of queries.
LINK_ATTRIBUTES: Final[dict[str, Any]] = {
    "connection": None,
    "close_at": None,
    "errors_occurred": False,
    "health_check_enabled": False,
    "health_check_done": False,
}


class WrapperLink(Link):
    """A link of Django's connection object, a `wrapper.SwitchingWrapper`.

    Attributes:
        cursor: returns a cursor of Django's backend on the link.
        savepoints: the savepoints that the running transaction had when the link joined it.
        parked: the values of `LINK_ATTRIBUTES` while another link is selected.
    """

    __slots__ = ("cursor", "parked", "savepoints")

    def __init__(self, server: Server, raw: Raw, driver: Driver, cursor: Callable[[], Any]) -> None:
        super().__init__(server, raw, driver)
        self.cursor = cursor
        self.savepoints: tuple[str, ...] = ()
        self.parked = LINK_ATTRIBUTES
