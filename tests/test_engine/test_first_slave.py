"""The slave that a scope tries first: drawn by weight; and what follows if this slave may not serve."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_engine.simulated import SimulatedDriver, SimulatedError

from replswitch import MASTER, SLAVE
from replswitch.drivers import Fault, WriteTracker
from replswitch.engine.choose import choose_slave
from replswitch.engine.options import DatabaseOptions
from replswitch.engine.port import Port
from replswitch.engine.rotation import Rotation
from replswitch.engine.servers import Link, Server, Servers
from replswitch.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "shop"


class Driver(SimulatedDriver):
    """Says that a slave is as far behind as its name says."""

    def seconds_behind(self, raw: Any) -> float:
        return float(raw.name)


class OneLinkEach(Port):
    """Opens one link to each server, and records what was opened and dropped.

    Attributes:
        down: the servers that refuse connections.
        opened: the servers, in the order in which links were opened.
        dropped: the servers whose links were dropped.
    """

    def __init__(self) -> None:
        self.driver = Driver()
        self.down: set[Server] = set()
        self.links: dict[Server, Link] = {}
        self.opened: list[Server] = []
        self.dropped: list[Server] = []

    def open(self, server: Server) -> Link:
        if server not in self.links:
            self.opened.append(server)
            if server in self.down:
                raise SimulatedError(Fault.UNSENT)
            self.links[server] = Link(server, Raw(server.name), self.driver)
        return self.links[server]

    def drop(self, server: Server, link: Link | None = None) -> None:
        self.dropped.append(server)
        self.links.pop(server, None)

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        yield Raw(server.name)


class Raw(WriteTracker):
    """A connection."""

    def __init__(self, name: str) -> None:
        self.name = name


def rotation_of(*slaves: Server, **options: Any) -> Rotation:
    servers = Servers(Server("master", MASTER), slaves, Server("master", SLAVE), has_slaves=True)
    return Rotation(KEY, KEY, servers, DatabaseOptions(**options))


def chosen(rotation: Rotation, port: OneLinkEach, scope: Scope | None = None) -> Server:
    link = choose_slave(scope or Scope(), KEY, None, rotation, 0, port)
    assert link is not None
    return link.server


@pytest.mark.parametrize("weights", [[3], [1, 2, 5], [0.5, 0.25, 4, 1, 1, 2, 0.25, 1, 3, 3]])
def test_scopes_choose_each_slave_in_proportion_to_its_weight(weights: list[float]) -> None:
    slaves = [Server(f"slave{number}", SLAVE, weight=weight) for number, weight in enumerate(weights)]
    rotation, port = rotation_of(*slaves), OneLinkEach()
    shares = Counter(chosen(rotation, port) for _ in range(20_000))
    expected = {slave: pytest.approx(20_000 * slave.weight / sum(weights), rel=0.2) for slave in slaves}
    assert shares == expected
    assert len(port.opened) == len(slaves)


def test_s6_a_scope_keeps_its_slave() -> None:
    slaves = [Server(f"slave{number}", SLAVE) for number in range(5)]
    rotation, port, scope = rotation_of(*slaves), OneLinkEach(), Scope()
    assert len({chosen(rotation, port, scope) for _ in range(50)}) == len(port.opened) == 1


def test_s6_a_scope_keeps_the_slave_that_another_thread_has_chosen_meanwhile() -> None:
    one, two = Server("one", SLAVE, weight=1_000_000), Server("two", SLAVE)
    scope = Scope()

    class Meanwhile(OneLinkEach):
        def open(self, server: Server) -> Link:
            scope.slaves.setdefault(KEY, two)
            return super().open(server)

    assert chosen(rotation_of(one, two), Meanwhile(), scope) is two


def test_f1_a_slave_that_refuses_connections_is_tried_once_and_leaves_rotation() -> None:
    one, two = Server("one", SLAVE, weight=1_000_000), Server("two", SLAVE)
    rotation, port, scope = rotation_of(one, two), OneLinkEach(), Scope()
    port.down.add(one)
    assert chosen(rotation, port, scope) is two
    assert (port.opened, port.dropped, list(rotation.resting)) == ([one, two], [one], [one])
    assert {chosen(rotation, port) for _ in range(50)} == {two}
    assert port.opened == [one, two]


def test_f1_a_slave_that_has_failed_in_a_scope_is_not_drawn_again_in_this_scope() -> None:
    one, two = Server("one", SLAVE, weight=1_000_000), Server("two", SLAVE)
    rotation, port, scope = rotation_of(one, two), OneLinkEach(), Scope()
    scope.avoid_slave(KEY, one)
    assert chosen(rotation, port, scope) is two
    assert chosen(rotation, port) is one


def test_f1_a_slave_that_answers_the_scope_that_uses_it_returns_into_rotation() -> None:
    one, two = Server("one", SLAVE), Server("two", SLAVE)
    rotation, port, scope = rotation_of(one, two), OneLinkEach(), Scope()
    server = chosen(rotation, port, scope)
    rotation.rest(server, SimulatedError(Fault.LOST))
    port.drop(server)
    assert chosen(rotation, port, scope) is server
    assert not rotation.resting


def test_f1_a_link_from_before_the_loss_of_its_server_is_replaced() -> None:
    one = Server("one", SLAVE)
    rotation, port = rotation_of(one), OneLinkEach()
    old = port.open(one)
    rotation.rest(one, SimulatedError(Fault.LOST))
    rotation.has_answered(one)
    link = choose_slave(Scope(), KEY, None, rotation, 0, port)
    assert link is port.links[one]
    assert link is not old


def test_a_slave_that_lags_more_than_max_lag_is_not_drawn() -> None:
    near, far = Server("1", SLAVE), Server("99", SLAVE)
    rotation, port = rotation_of(near, far, max_lag=5), OneLinkEach()
    assert {chosen(rotation, port) for _ in range(50)} == {near}
    assert far not in port.opened
