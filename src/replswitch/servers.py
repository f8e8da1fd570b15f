"""The servers of one database: a master, and slaves to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from replswitch.errors import ConfigurationError
from replswitch.links import LinkPool
from replswitch.state import MASTER, SLAVE, State

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.links import Link


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One database server, in one of its two parts.

    Attributes:
        name: what people know it by: ``slave1.db``, ``127.0.0.1:3307``.
        state: the state it serves.
        links: its links.
        weight: its share of the reads, compared with those of the others.
    """

    name: str
    state: State
    links: LinkPool
    weight: float = 1

    def take_link(self) -> Link:
        """Lend a link. Raises the driver's own error when none can be opened."""
        return self.links.take(self)


class Servers:
    """A master and its slaves.

    Without slaves, a second server stands for the master: reached by the same settings, but read-only (S10).

    Args:
        driver: opens the links.
        master: the master's settings, as the driver's ``connect`` takes them.
        slaves: the slaves' settings; what one leaves out is the master's.
        pool_size: idle links kept for each server.

    Attributes:
        master: the master.
        slaves: the slaves, or the one that stands in.
        reader: the master, by links that refuse writes; for reads that may run nowhere else.
        has_slaves: whether there are any.
        schema: what the database is called on the servers.

    Raises:
        ConfigurationError: something is missing, unknown or of the wrong kind.
    """

    def __init__(self, driver: Driver, master: object, slaves: object, pool_size: int) -> None:
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
        self.master = self._server(driver, settings, MASTER, pool_size)
        replicas = []
        for number, slave in enumerate(slaves, start=1):
            merged = {**settings, **_settings(f"slaves[{number - 1}]", slave)}
            weight = _weight(merged, f"slave number {number}", 1)
            driver.check(merged, f"slave number {number}")
            replicas.append(self._server(driver, merged, SLAVE, pool_size, weight))
        if share is not None:  # the master takes reads too, through links that refuse writes
            replicas.append(self._server(driver, settings, SLAVE, pool_size, share))
        self.schema = driver.schema(settings)
        self.has_slaves = bool(replicas)
        self.reader = self._server(driver, settings, SLAVE, pool_size)
        self.slaves = tuple(replicas) or (self.reader,)

    def close(self) -> None:
        """Close the idle links to all servers."""
        for server in (self.master, *self.slaves, self.reader):
            server.links.close()

    @staticmethod
    def _server(driver: Driver, settings: dict[str, Any], state: State, pool_size: int, weight: float = 1) -> Server:
        pool = LinkPool(driver, settings, read_only=state == SLAVE, size=pool_size)
        return Server(driver.address(settings), state, pool, weight)


def _settings(name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f'`{name}` is {_kind(given)}. It must be a mapping of settings: {{"host": "…", "user": "…"}}.'
        )
    return dict(given)


W = TypeVar("W")


def _weight(settings: dict[str, Any], server: str, default: W) -> float | W:
    """Take the setting that is not the driver's."""
    weight = settings.pop("weight", default)
    if weight is not default and (isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0):
        raise ConfigurationError(f'The setting "weight" of {server} is {weight!r}. It must be a number above 0.')
    return weight


def _kind(value: object) -> str:
    # Never the value itself: a string given here may be an address with a password in it.
    return "None" if value is None else f"a value of type {type(value).__name__}"
