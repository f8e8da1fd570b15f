"""What all threads of a process share of the database behind an alias."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from django.core.signals import setting_changed

from django_replswitch.backends.links import Server, servers_of
from django_replswitch.conf import database_options
from replswitch import SLAVE, Switch
from replswitch.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping

_making: Final = threading.Lock()

# The settings of an alias that decide which servers there are.
_SERVERS: Final = ("HOST", "PORT", "NAME", "USER", "SLAVES", "WEIGHT")


class AliasSwitch(Switch):
    """The switch of an alias. Its connections record what they commit."""

    records_writes = True


class Replicated:
    """The database behind an alias: its switch, its servers, and what is known of them.

    Attributes:
        master: the master.
        slaves: the servers of reads.
        reader: the master, by connections that refuse writes; for reads that may run nowhere else.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any], switch: Switch) -> None:
        self._alias = alias
        self._switch = switch
        self._has_slaves = bool(settings.get("SLAVES"))
        self.master, self.slaves = servers_of(settings, alias)
        self.reader = Server(SLAVE, self.master.name, {}) if self._has_slaves else self.slaves[0]

    @cached_property
    def database(self) -> Database:
        """The database, with the options of the settings.

        Raises:
            ImproperlyConfigured: the options are wrong.
        """
        made = Database(self._switch, self._alias, self._alias, options=database_options(), has_slaves=self._has_slaves)
        with _making:  # one for all threads: the first that was made
            return self.__dict__.setdefault("database", made)  # type: ignore[no-any-return]  # which is what it holds

    def renew(self) -> None:
        """Begin with the options that the settings have now, and with nothing known of any server."""
        self.__dict__.pop("database", None)


_switches: Final[dict[str, AliasSwitch]] = {}
_replicated: Final[dict[str, tuple[dict[str, Any], Replicated]]] = {}


def switch_of(alias: str) -> Switch:
    """Return the switch of an alias, the same whatever becomes of its settings."""
    return _switches.setdefault(alias, AliasSwitch())


def replicated(alias: str, settings: Mapping[str, Any]) -> Replicated:
    """Return what the threads share of an alias; made anew when its servers have changed, as tests do."""
    servers = {name: settings.get(name) for name in _SERVERS}
    with _making:
        known = _replicated.get(alias)
        if known is None or known[0] != servers:
            known = _replicated[alias] = servers, Replicated(alias, settings, switch_of(alias))
    return known[1]


def renew() -> None:
    """Begin anew with every alias: see `Replicated.renew`."""
    for _, shared in _replicated.values():
        shared.renew()


def _follow(*, setting: str, **_: object) -> None:
    if setting == "REPLSWITCH":
        renew()


setting_changed.connect(_follow)
