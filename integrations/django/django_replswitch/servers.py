"""The servers in the settings of an alias, and the state of its database that all threads of a process share."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import connections
from django.db.utils import load_backend

from django_replswitch.conf import configured
from django_replswitch.slaves import name_of, slaves_of, with_own
from replswitch import MASTER, SLAVE, ConfigurationError, Switch
from replswitch.engine.database import Database
from replswitch.engine.resolving import Name, ResolvingServers
from replswitch.engine.route import Route
from replswitch.engine.servers import Server, Servers
from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replswitch import State
    from replswitch.drivers import Driver, Written
    from replswitch.engine.port import Port
    from replswitch.positions import Position

#: The key for the share of the reads, in the settings of an alias and of each slave.
WEIGHT: Final = "WEIGHT"

#: The key that makes each address of a slave's HOST a slave of its own.
RESOLVE: Final = "RESOLVE"

#: The key for the name of the replicated set, in the settings of an alias. In markers, this name replaces the master's
#: address (M8).
REPLICATED_SET: Final = "REPLICATED_SET"

# The configured NAME of each alias. A test run changes NAME in the settings themselves.
_configured_names: Final[dict[str, object]] = {}


def servers_of(settings: Mapping[str, Any], alias: str) -> Servers:
    """Return the servers in the settings of an alias. The `source` of each slave contains the settings of this slave.

    Without slaves, the master serves reads over a read-only link (S10). A master with a weight serves a share of the
    reads as well, over a read-only link.

    Raises:
        ImproperlyConfigured: SLAVES is wrong (`slaves_of`), a WEIGHT is not a number above 0, or a RESOLVE is wrong.
    """
    place = f'DATABASES["{alias}"]'
    if _resolves(settings, place):
        raise ImproperlyConfigured(
            f"{place}: RESOLVE is True. A master has one address at a time. Leave RESOLVE out: each new connection to"
            " the master looks its HOST up. The settings of a slave in SLAVES can have RESOLVE."
        )
    found: list[Server | Name] = []
    for number, slave in enumerate(slaves_of(settings, alias)):
        where = f'{place}["SLAVES"][{number}]'
        weight = _weight(slave, where)
        if _resolves(slave, where):
            found.append(_behind_name(settings, slave, weight, alias, where))
        else:
            found.append(_server(SLAVE, settings, slave, weight))
    if WEIGHT in settings and found:
        found.append(_server(SLAVE, settings, {}, _weight(settings, place)))
    master, read_only = _server(MASTER, settings, {}), _server(SLAVE, settings, {})
    fixed = tuple(each for each in found if isinstance(each, Server))
    if len(fixed) < len(found):
        return ResolvingServers(master, found, read_only, _close)
    return Servers(master, fixed or (read_only,), read_only, bool(found))


#: Functions that close the pool of a server whose address is gone.
close_pools: Final[list[Callable[[Server], None]]] = []


def _close(server: Server) -> None:
    for close in close_pools:
        close(server)


def _behind_name(settings: Mapping[str, Any], own: Mapping[str, Any], weight: float, alias: str, where: str) -> Name:
    """Return the entry for a slave whose HOST has several addresses (F7)."""
    both = with_own(settings, own)
    wrapper: Any = load_backend(settings["ENGINE"]).DatabaseWrapper
    try:
        parameters = wrapper.stock(both, alias).get_connection_params()
        host, port = wrapper.driver.host_to_look_up(parameters, f"{where}: RESOLVE")
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from None
    options = both.get("OPTIONS") or {}

    def make(address: str, name: str) -> Server:
        return Server(name, SLAVE, {**own, "OPTIONS": {**options, "hostaddr": address}}, weight)

    return Name(host, port, make)


def merged(server: Server, settings: Mapping[str, Any], alias: str | None = None) -> dict[str, Any]:
    """Return the settings of a server, which are the settings of its alias, overridden by the server's own.

    Args:
        server: the server.
        settings: the settings of the alias.
        alias: the name of the alias. In a test run, Django changes NAME in the alias's settings to the test database.
            Every server then gets that NAME. If the alias is not given, each server has the NAME of its own settings.
    """
    found = with_own(settings, server.source)
    if alias is not None and settings["NAME"] != _configured_names[alias]:
        found["NAME"] = settings["NAME"]
    return found


def remember_name(alias: str, settings: Mapping[str, Any]) -> None:
    """Remember the NAME that an alias has before a test run changes it."""
    _configured_names.setdefault(alias, settings.get("NAME"))


def _server(state: State, settings: Mapping[str, Any], own: Mapping[str, Any], weight: float = 1) -> Server:
    return Server(name_of(with_own(settings, own)), state, own, weight)


def named_set(settings: Mapping[str, Any], alias: str) -> str:
    """Return the name of the replicated set in the settings of an alias; empty if there is none.

    Raises:
        ImproperlyConfigured: the name is not a string.
    """
    name = settings.get(REPLICATED_SET) or ""
    if not isinstance(name, str):
        raise ImproperlyConfigured(
            f'DATABASES["{alias}"]["{REPLICATED_SET}"] is {name!r}. It must be a string that names the master and its '
            'slaves, such as "shop".'
        )
    return name


def _resolves(settings: Mapping[str, Any], where: str) -> bool:
    resolves = settings.get(RESOLVE, False)
    if not isinstance(resolves, bool):
        raise ImproperlyConfigured(f"{where}: {RESOLVE} is {resolves!r}. It must be True or False.")
    return resolves


def _weight(settings: Mapping[str, Any], where: str) -> float:
    weight = settings.get(WEIGHT, 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise ImproperlyConfigured(f"{where}: {WEIGHT} is {weight!r}. It must be a number above 0.")
    return weight


# Shared by all threads
_making: Final = ProcessLock()

# The settings of an alias that decide which servers there are.
_SERVERS: Final = ("ENGINE", "HOST", "PORT", "NAME", "USER", "OPTIONS", "SLAVES", WEIGHT, RESOLVE, REPLICATED_SET)


class AliasSwitch(Switch):
    """The switch of an alias. The connections of the alias record what they commit."""

    records_writes = True


class AliasState:
    """What all threads share about the database of an alias, such as its switch and its servers.

    Attributes:
        switch: the switch of the alias, which stays the same when the settings change.
        servers: the master and the slaves.
        driver: the driver of their connections.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any], driver: Driver) -> None:
        self._alias = alias
        self.driver = driver.for_database()
        self.switch = _switches.setdefault(alias, AliasSwitch())
        self._routes: WeakSet[Route] = WeakSet()
        self._set_name = named_set(settings, alias)
        self.servers = servers_of(settings, alias)

    @cached_property
    def database(self) -> Database:
        """The database, with the options of the settings.

        Raises:
            ImproperlyConfigured: the options are wrong.
        """
        made = Database(self.switch, self._alias, self.servers, configured()[1], self._set_name)
        made.writes.locate = partial(_locate, self._alias)
        with _making:  # all threads share the one that was made first
            return self.__dict__.setdefault("database", made)  # type: ignore[no-any-return]  # it holds just that

    def make_route(self, port: Port, parameters: Callable[[Server], Mapping[str, Any]]) -> Route:
        """Return the route of a connection object.

        Args:
            port: the connection object.
            parameters: returns the parameters with which the driver opens a connection to a server.

        Raises:
            ImproperlyConfigured: the options are wrong.
        """
        self._set_name = self._set_name or port.driver.set_name(parameters(self.servers.master))
        route = Route(self.database, port)
        self._routes.add(route)
        return route

    def renew(self) -> None:
        """Start again with the current options of the settings, and forget the states of the servers."""
        self.__dict__.pop("database", None)
        with suppress(ImproperlyConfigured):  # the system checks report wrong options
            for route in tuple(self._routes):
                route.database = self.database
                route.forget()


def _locate(alias: str) -> Position | Written:
    connection: Any = connections[alias]
    found: Position | Written = connection.locate()
    return found


_switches: Final[dict[str, AliasSwitch]] = {}
_states: Final[dict[str, tuple[dict[str, Any], AliasState]]] = {}


def _copied(value: Any) -> Any:
    """Return a copy of a setting, which stays as it is if a list or a dictionary in the setting is changed."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list | tuple) else value


def alias_state(alias: str, settings: Mapping[str, Any], driver: Driver) -> AliasState:
    """Return the shared state of an alias. Make it again if the settings of its servers have changed, as in tests.

    Args:
        alias: the name of the alias.
        settings: its settings.
        driver: the driver of its ENGINE.
    """
    servers = {name: _copied(settings.get(name)) for name in _SERVERS}
    with _making:
        known = _states.get(alias)
        if known is None or known[0] != servers:
            known = _states[alias] = servers, AliasState(alias, settings, driver)
    return known[1]


def renew(*, setting: str = "REPLSWITCH", **_: object) -> None:
    """Renew the state of every alias after a test has changed the setting; see `AliasState.renew`."""
    if setting == "REPLSWITCH":
        for _servers, state in _states.values():
            state.renew()


setting_changed.connect(renew)
