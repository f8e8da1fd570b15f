"""What it costs a scope to choose its slave, among ten with weights, while nothing is wrong.

The links are there already, and nobody is asked for anything: what is measured is the choice. A new scope, which each
choice needs, is taken off.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ratio import Row, measure, run

from replswitch.health import Health
from replswitch.options import DatabaseOptions
from replswitch.scope import Scope
from replswitch.slaves import Slaves

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from contextlib import AbstractContextManager

    from ratio import Times

ROUNDS = 400
SLAVES = 10

LIMIT = 2.0
"""Microseconds for a scope with ten slaves."""


@dataclass(frozen=True, eq=False)
class Server:
    """A slave."""

    name: str
    weight: float


@dataclass(eq=False)
class Link:
    """A link to one that is open and alive."""

    server: Server
    raw: Any = None
    opened_at: float = 0.0
    identity: Hashable | None = None


class Reach:
    """See `replswitch.slaves.Reach`."""

    driver: Any = None

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self._links = {server: Link(server) for server in servers}

    def link_to(self, server: Server) -> Link:
        """Return the link."""
        return self._links[server]

    def drop(self, server: Server) -> None:
        """Nothing fails here."""

    def borrowed(self, server: Server | None) -> AbstractContextManager[Any]:
        """Nobody is asked here."""
        raise AssertionError(server)


def new_slaves(**options: Any) -> Slaves:
    """Make the slaves of a database."""
    return Slaves("shop", "shop", DatabaseOptions(**options), exist=True)


servers = tuple(Server(f"slave{number}.db", number % 3 + 1) for number in range(SLAVES))
reach = Reach(servers)
slaves = new_slaves()
health = Health()
with_one_at_rest = new_slaves(downtime=3600)
with_one_at_rest._health.failed(servers[3])


def scope(number: int) -> None:
    """Make a scope, and choose nothing."""
    for _ in repeat(None, number):
        Scope()


def choose(number: int) -> None:
    """Choose a slave for a new scope."""
    for _ in repeat(None, number):
        slaves.choose(Scope(), servers, None, reach)


def choose_one_resting(number: int) -> None:
    """Choose one while another one rests."""
    for _ in repeat(None, number):
        with_one_at_rest.choose(Scope(), servers, None, reach)


def again(number: int) -> None:
    """Choose again for a scope that has its slave."""
    running = Scope()
    slaves.choose(running, servers, None, reach)
    for _ in repeat(None, number):
        slaves.choose(running, servers, None, reach)


def candidates(number: int) -> None:
    """Take the first of the candidates."""
    for _ in repeat(None, number):
        next(iter(health.candidates(servers)))


def dice(number: int) -> None:
    """Throw the dice, as any choice by weight must."""
    for _ in repeat(None, number):
        random.random()


def loop(number: int) -> None:
    """Do nothing."""
    for _ in repeat(None, number):
        pass


def row(name: str, times: Times, side: str, floor: str, limit: float | None = None) -> Row:
    """Make a row of microseconds: the median of the rounds, without what the floor takes in the same round."""
    above = [(a - b) * 1e6 for a, b in zip(times[side], times[floor], strict=True)]
    low, middle, high = statistics.quantiles(above)
    quick = statistics.quantiles(above, n=10)[0]
    return Row(name, middle, limit, f"µs; half the rounds {low:.2f} to {high:.2f}; quickest tenth {quick:.2f}")


def rows() -> Iterator[Row]:
    """Yield the rows."""
    sides = (loop, scope, dice, candidates, choose, choose_one_resting, again)
    times = measure({side.__name__: side for side in sides}, ROUNDS)
    yield row("choosing one of ten slaves for a scope, µs", times, "choose", "scope", LIMIT)
    yield row("  of these: the candidates, in their order, µs", times, "candidates", "loop")
    yield row("  of these: random.random(), µs", times, "dice", "loop")
    yield row("  while one of them rests, µs", times, "choose_one_resting", "scope")
    yield row("  again, for a scope that has its slave, µs", times, "again", "loop")


if __name__ == "__main__":
    run(__doc__, rows)
