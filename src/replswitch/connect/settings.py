"""Make the servers of `replswitch.connect` from its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from replswitch.checking import is_number
from replswitch.connect.pool import LinkPool
from replswitch.decision import MASTER, SLAVE, State
from replswitch.drivers.urls import parse_url, settings_of_url, split_urls
from replswitch.engine.resolving import Name, ResolvingServers
from replswitch.engine.servers import Server, Servers
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from replswitch.drivers import Driver

#: The settings that say where a server is. A driver that gets several of them ignores all but one.
_PLACES: Final = frozenset({"host", "hostaddr", "unix_socket"})


def driver_for(master: object, driver: str | Driver | None) -> str | Driver:
    """Return ``driver`` if it is given; else, if ``master`` is a URL, its driver; else PyMySQL.

    Raises:
        ConfigurationError: the URL names another driver than the given one, or is wrong.
    """
    if not isinstance(master, str):
        return "pymysql" if driver is None else driver
    url = parse_url(master, "master")
    if url.names_driver and isinstance(driver, str) and driver != url.driver:
        raise ConfigurationError(
            f'The URL in `master` names the driver "{url.driver}", but `driver` is "{driver}". Leave out `driver`, or'
            " the driver in the URL."
        )
    return url.driver if driver is None else driver


def servers_of(driver: Driver, master: object, slaves: object, pool_size: int) -> Servers:
    """Return the servers, each with a `LinkPool` as its ``source``.

    Without slaves, the master serves slave state over read-only links (S10). A master with a weight serves a share of
    the reads, also over read-only links.

    Args:
        driver: opens the links.
        master: the master's settings, as the driver's ``connect`` takes them, or its URL.
        slaves: the settings or URLs of the slaves. A setting that is left out is taken from the master.
        pool_size: how many idle links are kept for each server.

    Raises:
        ConfigurationError: a setting is missing, unknown or of the wrong kind.
    """
    settings = _settings("master", master, driver)
    if not settings:
        raise ConfigurationError(
            'There is no master. Give `master` the settings of its server, such as {"host": "master.db", …}.'
        )
    if isinstance(slaves, str):
        slaves = split_urls(slaves)
    if isinstance(slaves, bytes | Mapping) or not isinstance(slaves, Sequence):
        raise ConfigurationError(
            f"`slaves` is {_kind(slaves)}. It must be a list with a URL or a mapping of settings for each slave: "
            '[{"host": "slave1.db"}].'
        )
    share = _weight(settings, "the master", None)
    if _resolves(settings, "the master"):
        raise ConfigurationError(
            'The setting "resolve" of the master is True. A master has one address at a time. Leave the setting out: '
            "each new connection to the master looks its host up."
        )
    driver.check(settings, "the master")

    def server(settings: dict[str, Any], state: State, weight: float = 1, name: str = "") -> Server:
        pool = LinkPool(driver, settings, read_only=state == SLAVE, size=pool_size)
        return Server(name or driver.address(settings), state, pool, weight)

    def behind_name(settings: dict[str, Any], weight: float, which: str) -> Name:
        host, port = driver.host_to_look_up(settings, f'The setting "resolve" of {which}')
        return Name(host, port, lambda address, name: server({**settings, "hostaddr": address}, SLAVE, weight, name))

    found: list[Server | Name] = []
    for number, slave in enumerate(slaves, start=1):
        own = _settings(f"slaves[{number - 1}]", slave, driver)
        merged = _merged(settings, own)
        which = f"slave number {number}"
        weight, resolves = _weight(merged, which, 1), _resolves(merged, which)
        # The URL of the master is accepted, because one server may serve all, as on a developer's machine.
        lacks_place = _PLACES.isdisjoint(own) and not _PLACES.isdisjoint(settings)
        if isinstance(slave, str) and merged == settings and lacks_place:
            raise ConfigurationError(
                f"`slaves[{number - 1}]` is a URL without a host and without a part that differs from the master, so"
                " the slave would be the master. Add the host of the slave. If there are no slaves, leave `slaves` out."
            )
        if lacks_place and settings.get("unix_socket") and merged.get("port") != settings.get("port"):
            raise ConfigurationError(
                f"`slaves[{number - 1}]` has a port, but no host or socket of its own, and the master has a Unix"
                " socket. A Unix socket has no port, so the slave would be the master. Add the host or the socket of"
                " the slave."
            )
        driver.check(merged, which)
        found.append(behind_name(merged, weight, which) if resolves else server(merged, SLAVE, weight))
    if share is not None:
        found.append(server(settings, SLAVE, share))
    master_read_only = server(settings, SLAVE)
    fixed = tuple(each for each in found if isinstance(each, Server))
    if len(fixed) < len(found):
        return ResolvingServers(server(settings, MASTER), found, master_read_only, _close)
    return Servers(server(settings, MASTER), fixed or (master_read_only,), master_read_only, bool(found))


def _close(server: Server) -> None:
    server.source.close()


def _merged(master: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a slave. If it has an address of its own, no part of the master's address is used."""
    if not _PLACES.isdisjoint(own):
        master = {name: value for name, value in master.items() if name not in _PLACES}
    return {**master, **own}


def _settings(name: str, given: object, driver: Driver) -> dict[str, Any]:
    if isinstance(given, str):
        return settings_of_url(given, driver, name)
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f'`{name}` is {_kind(given)}. It must be a URL, or a mapping of settings: {{"host": "…", "user": "…"}}.'
        )
    return dict(given)


W = TypeVar("W")


def _weight(settings: dict[str, Any], server: str, default: W) -> float | W:
    """Remove ``"weight"`` from the settings and return it. The driver does not know this setting."""
    weight = settings.pop("weight", default)
    if weight is not default and not (is_number(weight) and weight > 0):
        raise ConfigurationError(f'The setting "weight" of {server} is {weight!r}. It must be a number above 0.')
    return weight


def _resolves(settings: dict[str, Any], server: str) -> bool:
    """Remove ``"resolve"`` from the settings and return it. The driver does not know this setting."""
    resolves = settings.pop("resolve", False)
    if not isinstance(resolves, bool):
        raise ConfigurationError(f'The setting "resolve" of {server} is {resolves!r}. It must be True or False.')
    return resolves


def _kind(value: object) -> str:
    # Never show the value itself, because a string here may be an address with a password in it.
    return "None" if value is None else f"a value of type {type(value).__name__}"
