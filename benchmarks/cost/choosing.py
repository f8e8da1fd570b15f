"""The time in which a scope chooses its slave, among ten with weights, without faults.

The choice is `replswitch.engine.choose.choose_slave`, over a port whose links are open already: nothing is asked and
nothing waits. The time of the new scope, which each choice needs, is subtracted. The rows of `Route`, for the first and
for the next statement of a block, are for information.
"""

from __future__ import annotations

import random
import statistics
from itertools import repeat
from typing import TYPE_CHECKING, Any

from cost.ratio import Row, measure
from replswitch import MASTER, SLAVE, Switch
from replswitch.drivers import Driver
from replswitch.engine import choose as engine
from replswitch.engine.database import Database
from replswitch.engine.options import DatabaseOptions
from replswitch.engine.rotation import Rotation
from replswitch.engine.route import Route
from replswitch.engine.servers import Link, Server, Servers
from replswitch.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cost.ratio import Times

ROUNDS = 400
SLAVES = 10
NAME = "shop"

LIMIT = 1.6
"""Microseconds for a scope with ten slaves."""


class OpenLinks:
    """A port with a link to each server; see `replswitch.engine.port.Port`. The rest of one is never called here."""

    one_link = False

    def __init__(self, servers: Servers) -> None:
        self.driver = Driver()
        self._links = {server: Link(server, None, self.driver) for server in (servers.master, *servers.slaves)}

    def open(self, server: Server) -> Link:
        """Return the link."""
        return self._links[server]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was needed for a choice while nothing is wrong.")


def new_servers() -> Servers:
    """Make a master and its slaves."""
    slaves = tuple(Server(f"slave{number}.db", SLAVE, weight=number % 3 + 1) for number in range(SLAVES))
    return Servers(Server("master.db", MASTER), slaves, Server("master.db", SLAVE), has_slaves=True)


servers = new_servers()
port: Any = OpenLinks(servers)
rotation = Rotation(NAME, NAME, servers, DatabaseOptions())

others = new_servers()
port_of_others: Any = OpenLinks(others)
with_one_resting = Rotation(NAME, NAME, others, DatabaseOptions(downtime=3600))
with_one_resting._health.failed(others.slaves[3])  # without a log line

switch = Switch()
route = Route(Database(switch, NAME, servers, DatabaseOptions()), port)


def scope(number: int) -> None:
    """Make a scope, and choose nothing."""
    for _ in repeat(None, number):
        Scope()


def choose(number: int) -> None:
    """Choose a slave for a new scope."""
    for _ in repeat(None, number):
        engine.choose_slave(Scope(), NAME, None, rotation, 0, port)


def choose_one_resting(number: int) -> None:
    """Choose one while another one rests."""
    for _ in repeat(None, number):
        engine.choose_slave(Scope(), NAME, None, with_one_resting, 0, port_of_others)


def first(number: int) -> None:
    """Draw the slave that a new scope tries first."""
    for _ in repeat(None, number):
        rotation.first(Scope(), port)


def dice(number: int) -> None:
    """Throw the dice, as any choice by weight must."""
    for _ in repeat(None, number):
        random.random()


def block(number: int) -> None:
    """Enter and leave a block."""
    for _ in repeat(None, number):
        with switch.use_slave():
            pass


def first_statement(number: int) -> None:
    """Find the link for the first statement of a block."""
    for _ in repeat(None, number):
        with switch.use_slave():
            route.for_statement()


def next_statement(number: int) -> None:
    """Find it for the next ones."""
    with switch.use_slave():
        for _ in repeat(None, number):
            route.for_statement()


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
    sides = (loop, scope, dice, first, choose, choose_one_resting, block, first_statement, next_statement)
    times = measure({side.__name__: side for side in sides}, ROUNDS)
    yield row("choosing one of ten slaves for a scope, µs", times, "choose", "scope", LIMIT)
    yield row("  of these: drawing it by weight, µs", times, "first", "scope")
    yield row("  of these: random.random(), µs", times, "dice", "loop")
    yield row("  while one of them rests, µs", times, "choose_one_resting", "scope")
    yield row("  Route: the first statement of a block, µs", times, "first_statement", "block")
    yield row("  Route: the next ones, µs", times, "next_statement", "loop")
