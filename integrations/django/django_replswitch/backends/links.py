"""What belongs to one physical connection, and is exchanged in the wrapper when another one works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from replswitch import MASTER, SLAVE, State

if TYPE_CHECKING:
    from collections.abc import Hashable

#: The attributes of Django's ``BaseDatabaseWrapper`` that speak of one physical connection, with their values before
#: there is one. All others speak of the database: settings, transactions, savepoints, the log of queries.
LINK_ATTRIBUTES: Final[dict[str, Any]] = {
    "connection": None,
    "close_at": None,
    "errors_occurred": False,
    "health_check_enabled": False,
    "health_check_done": False,
}

#: The key in the settings of an alias, and in those of each slave, that is the share of the reads.
WEIGHT: Final = "WEIGHT"


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One server of a database.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        settings: what of the alias's settings is different for it.
        weight: its share of the reads, compared with those of the others.
    """

    state: State
    name: str
    settings: Mapping[str, Any]
    weight: float = 1

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
        raw: the driver's connection; None while it is closed.
        opened_at: when it was opened, by `time.monotonic`.
        identity: which server it leads to, as the server says; None before it was asked.
        autocommit: the connection's own mode, where Django's wrapper says what the application wants.
        savepoints: those of the running transaction when it joined.
        parked: the values of `LINK_ATTRIBUTES`, while another link works.
    """

    __slots__ = ("autocommit", "identity", "opened_at", "parked", "raw", "savepoints", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.raw: Any = None
        self.opened_at = 0.0
        self.identity: Hashable | None = None
        self.autocommit = False
        self.savepoints: tuple[str, ...] = ()
        self.parked = dict(LINK_ATTRIBUTES)


def servers_of(settings: Mapping[str, Any], alias: str) -> tuple[Server, tuple[Server, ...]]:
    """Return the master, and the servers of reads, that the settings of an alias name.

    Without slaves, a second, read-only connection to the master stands in (S10). A master with a weight takes a share
    of the reads, too, through such a connection.

    Raises:
        ImproperlyConfigured: SLAVES is no list of mappings, or a WEIGHT is no number above 0.
    """
    slaves = settings.get("SLAVES", ())
    if not isinstance(slaves, list | tuple) or not all(isinstance(slave, Mapping) for slave in slaves):
        raise ImproperlyConfigured(
            f'DATABASES["{alias}"]["SLAVES"] must be a list with a dictionary of settings for each slave: '
            '[{"HOST": "slave1.db"}].'
        )
    master = Server(MASTER, _name(settings), {})
    found = [
        Server(SLAVE, _name({**settings, **slave}), slave, _weight(slave, f'DATABASES["{alias}"]["SLAVES"][{number}]'))
        for number, slave in enumerate(slaves)
    ]
    if WEIGHT in settings and found:
        found.append(Server(SLAVE, master.name, {}, _weight(settings, f'DATABASES["{alias}"]')))
    return master, tuple(found) or (Server(SLAVE, master.name, {}),)


def _weight(settings: Mapping[str, Any], where: str) -> float:
    weight = settings.get(WEIGHT, 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise ImproperlyConfigured(f"{where}: {WEIGHT} is {weight!r}. It must be a number above 0.")
    return weight


def _name(settings: Mapping[str, Any]) -> str:
    host, port = settings.get("HOST"), settings.get("PORT")
    if host:
        return f"{host}:{port}" if port else str(host)
    return str(settings.get("NAME") or "localhost").rpartition("/")[2]
