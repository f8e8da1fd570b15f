"""The known positions of servers, and how long they hold. No server is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from replswitch import SLAVE
from replswitch.engine.lag import PositionClock
from replswitch.engine.rotation import KnownPositions
from replswitch.engine.servers import Server
from replswitch.positions import MariaDBPosition

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass
class Connected:
    """As much of a link as is needed here.

    Attributes:
        identity: of the server that it leads to; None until it has been asked.
        server: the server in the settings.
    """

    identity: Hashable = None
    server: Server = field(default_factory=lambda: Server("slaves.db", SLAVE))


class Clock:
    """Shows the seconds that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Any:
    """Answers hold for 30 seconds. Not typed: the links are not real ones."""
    return KnownPositions(30, clock)


def position(sequence: int) -> MariaDBPosition:
    return MariaDBPosition.parse(f"0-1-{sequence}")


def test_p2_a_reported_position_counts_on_all_links_to_the_same_server(known: Any) -> None:
    link, same, other = Connected(), Connected("slave1"), Connected("slave2")
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5), 0)
    assert known.has_reached(same, position(4), 0)
    assert not known.has_reached(same, position(6), 0)
    assert not known.has_reached(other, position(5), 0)
    clone = Connected("slave1", Server("slave2.db", SLAVE))
    assert not known.has_reached(clone, position(4), 0)


def test_p2_no_position_counts_as_reached_on_a_link_to_a_server_that_was_not_asked(known: Any) -> None:
    known.learn(Connected(), "slave1", position(5))
    assert not known.has_reached(Connected(), position(1), 0)


def test_p2_a_lower_reported_position_replaces_a_higher_one(known: Any) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    known.learn(link, "slave1", position(3))
    assert not known.has_reached(link, position(5), 0)
    assert known.has_reached(link, position(3), 0)


def test_p2_a_report_without_a_position_replaces_an_earlier_position(known: Any) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    known.learn(link, "slave1", None)
    assert not known.has_reached(link, position(1), 0)


def test_p4_a_reported_position_counts_for_the_seconds_of_known_for(known: Any, clock: Clock) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    clock.seconds = 30
    assert known.has_reached(link, position(5), 0)
    clock.seconds = 30.1
    assert not known.has_reached(link, position(5), 0)
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5), 0)


def test_p4_reported_positions_that_are_too_old_are_forgotten(known: Any, clock: Clock) -> None:
    """Behind a host name, addresses and identities may change without end."""
    for number in range(100):
        clock.seconds = 10 * number
        known.learn(Connected(server=Server(f"slaves.db (10.0.0.{number})", SLAVE)), f"slave{number}", position(5))
        known.learn(Connected(), "slave", position(number))
    assert [identity for _, identity in known._reached] == ["slave96", "slave97", "slave98", "slave99", "slave"]
    assert known.has_reached(Connected("slave"), position(99), 0)


def test_p4_a_position_reported_before_a_write_is_not_used_for_the_write(known: Any, clock: Clock) -> None:
    """Where it includes one, replication was begun anew in between."""
    link = Connected()
    clock.seconds = 10
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5), 10)
    assert not known.has_reached(link, position(5), 10.1)
    clock.seconds = 11
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5), 10.1)


def test_p4_a_position_reported_before_the_clock_was_set_back_is_not_used(known: Any, clock: Clock) -> None:
    link = Connected()
    clock.seconds = 10
    known.learn(link, "slave1", position(5))
    clock.seconds = 9
    assert not known.has_reached(link, position(5), 0)


def test_p4_positions_from_before_a_restart_of_replication_are_not_compared_to_measure_the_lag(clock: Clock) -> None:
    behind = PositionClock(clock)
    assert behind.seconds_behind(position(1000), position(1000)) == 0
    clock.seconds = 60
    assert behind.seconds_behind(position(1), position(0)) == 0  # the master has come to 1 just now
    clock.seconds = 63
    assert behind.seconds_behind(position(1), position(0)) == 3
    assert behind.seconds_behind(position(2), position(1)) == 0
