"""Make the servers of `replswitch.connect` from its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from replswitch.checking import is_number
from replswitch.connect.pool import LinkPool
from replswitch.decision import MASTER, SLAVE, State
from replswitch.engine.servers import Server, Servers
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from replswitch.drivers import Driver


def servers_of(driver: Driver, master: object, slaves: object, pool_size: int) -> Servers:
    """Return the servers, each with a `LinkPool` as its ``source``.

    Without slaves, the master serves slave state over read-only links (S10). A master with a weight serves a share of
    the reads, also over read-only links.

    Args:
        driver: opens the links.
        master: the master's settings, as the driver's ``connect`` takes them.
        slaves: the settings of the slaves. A setting that is left out is the master's.
        pool_size: how many idle links are kept for each server.

    Raises:
        ConfigurationError: a setting is missing, unknown or of the wrong kind.
    """
    settings = _settings("master", master)
    if not settings:
        raise ConfigurationError(
            'There is no master. Give `master` the settings of its server: {"host": "master.db", …}.'
        )
    if isinstance(slaves, str | bytes | Mapping) or not isinstance(slaves, Sequence):
        raise ConfigurationError(
            f"`slaves` is {_kind(slaves)}. It must be a list with a mapping of settings for each slave: "
            '[{"host": "slave1.db"}].'
        )
    share = _weight(settings, "the master", None)
    driver.check(settings, "the master")

    def server(settings: dict[str, Any], state: State, weight: float = 1) -> Server:
        pool = LinkPool(driver, settings, read_only=state == SLAVE, size=pool_size)
        return Server(driver.address(settings), state, pool, weight)

    found = []
    for number, slave in enumerate(slaves, start=1):
        merged = {**settings, **_settings(f"slaves[{number - 1}]", slave)}
        weight = _weight(merged, f"slave number {number}", 1)
        driver.check(merged, f"slave number {number}")
        found.append(server(merged, SLAVE, weight))
    if share is not None:
        found.append(server(settings, SLAVE, share))
    master_read_only = server(settings, SLAVE)
    return Servers(server(settings, MASTER), tuple(found) or (master_read_only,), master_read_only, bool(found))


def _settings(name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f'`{name}` is {_kind(given)}. It must be a mapping of settings: {{"host": "…", "user": "…"}}.'
        )
    return dict(given)


W = TypeVar("W")


def _weight(settings: dict[str, Any], server: str, default: W) -> float | W:
    """Remove ``"weight"`` from the settings and return it. The driver does not know this setting."""
    weight = settings.pop("weight", default)
    if weight is not default and not (is_number(weight) and weight > 0):
        raise ConfigurationError(f'The setting "weight" of {server} is {weight!r}. It must be a number above 0.')
    return weight


def _kind(value: object) -> str:
    # Never show the value itself: a string here may be an address with a password in it.
    return "None" if value is None else f"a value of type {type(value).__name__}"
