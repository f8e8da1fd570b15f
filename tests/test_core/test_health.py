"""Which server is tried, over a simulated clock: a model of rests, readers and faults."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from replswitch import SLAVE
from replswitch.engine.health import Health
from replswitch.engine.lag import STALE, Lag
from replswitch.engine.servers import Server

DOWNTIME = 10


def named(name: str, weight: float = 1) -> Server:
    return Server(name, SLAVE, weight=weight)


class Faults(RuleBasedStateMachine):
    """Readers come, meet servers that are up or down, and say so, late perhaps or never."""

    readers = Bundle("readers")

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.now = 0.0
        self.servers = tuple(named(f"slave{number}") for number in range(count))
        self.down: set[Server] = set()
        self.health = Health(DOWNTIME, lambda: self.now)
        # The model: until when a server rests, and who tries it.
        self.rests: dict[Server, float] = {}

    @rule(seconds=st.floats(0, 2 * DOWNTIME))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def a_server_dies_or_comes_back(self, data: st.DataObject) -> None:
        self.down ^= {data.draw(st.sampled_from(self.servers))}

    @rule(target=readers)
    def a_reader_comes(self) -> object:
        offered = list(self.health.candidates(self.servers))
        in_use = [server for server in self.servers if server not in self.rests]
        due = [server for server in self.servers if self.rests.get(server, self.now + 1) <= self.now]
        tried = offered[: len(offered) - len(in_use)]
        assert sorted(offered[len(tried) :], key=in_use.index) == in_use, "used early, tried by two, or forgotten"
        assert tried == due[:1], "a server whose rest is over is tried by one reader"
        if tried:
            self.rests[tried[0]] = self.now + DOWNTIME
        return offered[0] if offered else multiple()

    @rule(server=consumes(readers))
    def he_says_what_he_met(self, server: Server) -> None:
        if server in self.down:
            assert self.health.failed(server) == (server not in self.rests)
            self.rests[server] = self.now + DOWNTIME
        else:
            assert self.health.answered(server) == (server in self.rests)
            self.rests.pop(server, None)

    @rule(server=consumes(readers))
    def he_says_nothing(self, server: Server) -> None:
        """An error of another kind, or a process that hangs: the server is offered again later."""


def test_f2_servers_leave_and_return_to_rotation_as_in_the_model() -> None:
    run_state_machine_as_test(Faults)


def test_f2_a_server_out_of_rotation_is_tried_by_one_reader_and_returns_on_success() -> None:
    now = [0.0]
    health = Health(DOWNTIME, lambda: now[0])
    one, two = servers = (named("one"), named("two"))
    assert health.failed(one)
    assert {tuple(health.candidates(servers)) for _ in range(20)} == {(two,)}
    now[0] = DOWNTIME
    assert list(health.candidates(servers)) == [one, two]
    assert list(health.candidates(servers)) == [two]
    assert health.answered(one)
    assert {next(iter(health.candidates(servers))) for _ in range(50)} == {one, two}


def test_each_server_is_drawn_from_those_that_remain_in_proportion_to_its_weight() -> None:
    one, two, three = servers = (named("one", 1), named("two", 2), named("three", 5))
    health = Health()
    orders = Counter(tuple(health.candidates(servers)) for _ in range(20_000))
    expected = {
        (one, two, three): 1 / 8 * 2 / 7,
        (one, three, two): 1 / 8 * 5 / 7,
        (two, one, three): 2 / 8 * 1 / 6,
        (two, three, one): 2 / 8 * 5 / 6,
        (three, one, two): 5 / 8 * 1 / 3,
        (three, two, one): 5 / 8 * 2 / 3,
    }
    assert orders == {order: pytest.approx(20_000 * share, rel=0.2) for order, share in expected.items()}


class TestLag:
    """The lag of a slave, over a simulated clock."""

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_f1_an_interrupted_lag_measurement_is_made_again(self, error: type[BaseException]) -> None:
        now = 0.0
        lag, slave = Lag(5, lambda: now), named("slave")

        def is_broken_off() -> float:
            raise error

        with pytest.raises(error):
            lag.admits(slave, is_broken_off)
        assert lag.admits(slave, lambda: 99)  # the other threads do not wait for it
        now += 2 * STALE
        assert not lag.admits(slave, lambda: 99)

    def test_f1_one_reader_at_a_time_measures_the_lag(self) -> None:
        now, measured = 0.0, 0
        lag, slave = Lag(5, lambda: now), named("slave")

        def measure() -> float:
            nonlocal measured
            measured += 1
            assert lag.admits(slave, measure)  # as another reader meanwhile
            return 99

        assert not lag.admits(slave, measure)
        assert measured == 1
        now += 2 * STALE
        assert not lag.admits(slave, lambda: 6)
        now += 2 * STALE
        assert lag.admits(slave, lambda: 4)
