"""What all threads of a process share of the database of an alias."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from django_replswitch.conf import database_options
from django_replswitch.servers import WEIGHT, servers_of
from replswitch import Switch
from replswitch.engine.database import Database
from replswitch.engine.route import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.engine.port import Port

_making: Final = threading.Lock()

# The settings of an alias that decide which servers there are.
_SERVERS: Final = ("HOST", "PORT", "NAME", "USER", "SLAVES", WEIGHT)


class AliasSwitch(Switch):
    """The switch of an alias. Its connections record what they commit."""

    records_writes = True


class AliasState:
    """The database of an alias: its switch, its servers, and what is known of them.

    Attributes:
        servers: the master and the slaves.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any], switch: Switch) -> None:
        self._alias = alias
        self._switch = switch
        self._routes: WeakSet[Route] = WeakSet()
        self.servers = servers_of(settings, alias)

    @cached_property
    def database(self) -> Database:
        """The database, with the options of the settings.

        Raises:
            ImproperlyConfigured: the options are wrong.
        """
        made = Database(self._switch, self._alias, self.servers, database_options(), key=self._alias)
        with _making:  # one for all threads: the first that was made
            return self.__dict__.setdefault("database", made)  # type: ignore[no-any-return]  # it holds just that

    def make_route(self, port: Port) -> Route:
        """Return the route of a connection object.

        Raises:
            ImproperlyConfigured: the options are wrong.
        """
        route = Route(self.database, port)
        self._routes.add(route)
        return route

    def renew(self) -> None:
        """Begin anew with the options that the settings have now; nothing is known of any server."""
        self.__dict__.pop("database", None)
        with suppress(ImproperlyConfigured):  # the system checks report it
            for route in tuple(self._routes):
                route.database = self.database
                route.forget()


_switches: Final[dict[str, AliasSwitch]] = {}
_states: Final[dict[str, tuple[dict[str, Any], AliasState]]] = {}


def switch_of(alias: str) -> Switch:
    """Return the switch of an alias, the same whatever becomes of its settings."""
    return _switches.setdefault(alias, AliasSwitch())


def alias_state(alias: str, settings: Mapping[str, Any]) -> AliasState:
    """Return what the threads share of an alias; made anew when its servers have changed, as tests do."""
    servers = {name: settings.get(name) for name in _SERVERS}
    with _making:
        known = _states.get(alias)
        if known is None or known[0] != servers:
            known = _states[alias] = servers, AliasState(alias, settings, switch_of(alias))
    return known[1]


def renew() -> None:
    """Begin anew with every alias: see `AliasState.renew`."""
    for _, state in _states.values():
        state.renew()


def _follow(*, setting: str, **_: object) -> None:
    if setting == "REPLSWITCH":
        renew()


setting_changed.connect(_follow)
