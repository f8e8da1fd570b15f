"""The servers that the settings of an alias name, and the settings that lead to each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from replswitch import MASTER, SLAVE
from replswitch.engine.servers import Server, Servers

if TYPE_CHECKING:
    from replswitch import State

#: The key in the settings of an alias, and in those of each slave, that is the share of the reads.
WEIGHT: Final = "WEIGHT"

# The NAME of each alias as it was configured; a test run changes it in the settings themselves.
_configured_names: Final[dict[str, object]] = {}


def servers_of(settings: Mapping[str, Any], alias: str) -> Servers:
    """Return the servers that the settings of an alias name. Their `source` is the settings that differ.

    Without slaves, the master serves reads over a link that refuses writes (S10). A master with a weight takes a share
    of the reads as well, over such a link.

    Raises:
        ImproperlyConfigured: SLAVES is no list of mappings, or a WEIGHT is no number above 0.
    """
    slaves = settings.get("SLAVES", ())
    if not isinstance(slaves, list | tuple) or not all(isinstance(slave, Mapping) for slave in slaves):
        raise ImproperlyConfigured(
            f'DATABASES["{alias}"]["SLAVES"] must be a list with a dictionary of settings for each slave: '
            '[{"HOST": "slave1.db"}].'
        )
    found = [
        _server(SLAVE, settings, slave, _weight(slave, f'DATABASES["{alias}"]["SLAVES"][{number}]'))
        for number, slave in enumerate(slaves)
    ]
    if WEIGHT in settings and found:
        found.append(_server(SLAVE, settings, {}, _weight(settings, f'DATABASES["{alias}"]')))
    read_only = _server(SLAVE, settings, {})
    return Servers(_server(MASTER, settings, {}), tuple(found) or (read_only,), read_only, bool(found))


def merged(server: Server, settings: Mapping[str, Any], alias: str | None = None) -> dict[str, Any]:
    """Return the settings that lead to a server: those of its alias, overridden by its own.

    Args:
        server: the server.
        settings: of the alias.
        alias: its name. In a test run Django changes the alias's NAME to that of the test database; then it is every
            server's. Without the alias each server has the NAME of its own settings.
    """
    found = {**settings, **server.source}
    if alias is not None and settings["NAME"] != _configured_names[alias]:
        found["NAME"] = settings["NAME"]
    return found


def remember_name(alias: str, settings: Mapping[str, Any]) -> None:
    """Remember the NAME that an alias has before a test run changes it."""
    _configured_names.setdefault(alias, settings.get("NAME"))


def _server(state: State, settings: Mapping[str, Any], own: Mapping[str, Any], weight: float = 1) -> Server:
    both = {**settings, **own}
    host, port = both.get("HOST"), both.get("PORT")
    if host:
        name = f"{host}:{port}" if port else str(host)
    else:
        name = str(both.get("NAME") or "localhost").rpartition("/")[2]
    return Server(name, state, own, weight)


def _weight(settings: Mapping[str, Any], where: str) -> float:
    weight = settings.get(WEIGHT, 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise ImproperlyConfigured(f"{where}: {WEIGHT} is {weight!r}. It must be a number above 0.")
    return weight
