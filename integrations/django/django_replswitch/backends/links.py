"""The links of Django's connection object: one physical connection each, and what Django knows of it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.engine.servers import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Server

#: The attributes of Django's ``BaseDatabaseWrapper`` that describe one physical connection, with their values before
#: there is one. All others describe the database: settings, transactions, savepoints, the log of queries.
LINK_ATTRIBUTES: Final[dict[str, Any]] = {
    "connection": None,
    "close_at": None,
    "errors_occurred": False,
    "health_check_enabled": False,
    "health_check_done": False,
}


class WrapperLink(Link):
    """A link of one wrapper.

    Attributes:
        autocommit: the connection's own mode; the wrapper's attribute is the mode that the application wants.
        cursor: returns a cursor of the backend's own on it.
        savepoints: those of the running transaction when the link joined it.
        parked: the values of `LINK_ATTRIBUTES` while another link is selected.
    """

    __slots__ = ("autocommit", "cursor", "parked", "savepoints")

    def __init__(
        self, server: Server, raw: Raw, driver: Driver, cursor: Callable[[], Any], *, autocommit: bool
    ) -> None:
        super().__init__(server, raw, driver)
        self.cursor = cursor
        self.autocommit = autocommit
        self.savepoints: tuple[str, ...] = ()
        self.parked = LINK_ATTRIBUTES
