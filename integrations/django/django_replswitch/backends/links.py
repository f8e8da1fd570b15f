"""What belongs to one physical connection, and is exchanged in the wrapper when another one works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from replswitch import MASTER, SLAVE, State

#: The attributes of Django's ``BaseDatabaseWrapper`` that speak of one physical connection, with their values before
#: there is one. All others speak of the database: settings, transactions, savepoints, the log of queries.
LINK_ATTRIBUTES: Final[dict[str, Any]] = {
    "connection": None,
    "close_at": None,
    "errors_occurred": False,
    "health_check_enabled": False,
    "health_check_done": False,
}


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One server of a database.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        settings: what of the alias's settings is different for it.
    """

    state: State
    name: str
    settings: Mapping[str, Any]

    def merged(self, alias_settings: Mapping[str, Any], configured_name: object) -> dict[str, Any]:
        """Return the settings to connect with: those of the alias, and the server's own before them.

        In a test run Django changes the alias's NAME to that of the test database; then it is every server's.
        """
        merged = {**alias_settings, **self.settings}
        if alias_settings["NAME"] != configured_name:
            merged["NAME"] = alias_settings["NAME"]
        return merged


class Link:
    """One physical connection to a server: what the wrapper keeps of it while another one works.

    Attributes:
        server: where it leads.
        autocommit: the connection's own mode, where Django's wrapper says what the application wants.
        read: rows were read through it in the running transaction.
        savepoints: those of the running transaction when it joined.
        parked: the values of `LINK_ATTRIBUTES`, while another link works.
    """

    __slots__ = ("autocommit", "parked", "read", "savepoints", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.autocommit = False
        self.read = False
        self.savepoints: tuple[str, ...] = ()
        self.parked = dict(LINK_ATTRIBUTES)


def servers_of(settings: Mapping[str, Any], alias: str) -> tuple[Server, tuple[Server, ...]]:
    """Return the master and the slaves that the settings of an alias name.

    Without slaves, a second, read-only connection to the master stands in (S10).

    Raises:
        ImproperlyConfigured: SLAVES is no list of mappings.
    """
    slaves = settings.get("SLAVES", ())
    if not isinstance(slaves, list | tuple) or not all(isinstance(slave, Mapping) for slave in slaves):
        raise ImproperlyConfigured(
            f'DATABASES["{alias}"]["SLAVES"] must be a list with a dictionary of settings for each slave: '
            '[{"HOST": "slave1.db"}].'
        )
    master = Server(MASTER, _name(settings), {})
    return master, tuple(Server(SLAVE, _name({**settings, **slave}), slave) for slave in slaves or ({},))


def _name(settings: Mapping[str, Any]) -> str:
    host, port = settings.get("HOST"), settings.get("PORT")
    if host:
        return f"{host}:{port}" if port else str(host)
    return str(settings.get("NAME") or "localhost").rpartition("/")[2]
