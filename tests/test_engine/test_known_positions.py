"""What a process knows of the positions of its servers, and for how long. No server is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from replswitch.engine.rotation import KnownPositions
from replswitch.positions import MariaDBPosition

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass
class Connected:
    """As much of a link as is needed here.

    Attributes:
        identity: of the server that it leads to; None until it has been asked.
    """

    identity: Hashable = None


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


def test_p2_an_answer_holds_for_all_links_to_the_same_server(known: Any) -> None:
    link, same, other = Connected(), Connected("slave1"), Connected("slave2")
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5))
    assert known.has_reached(same, position(4))
    assert not known.has_reached(same, position(6))
    assert not known.has_reached(other, position(5))


def test_p2_a_link_that_was_not_asked_has_reached_nothing(known: Any) -> None:
    known.learn(Connected(), "slave1", position(5))
    assert not known.has_reached(Connected(), position(1))


def test_p2_a_lower_answer_replaces_a_higher_one(known: Any) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    known.learn(link, "slave1", position(3))
    assert not known.has_reached(link, position(5))
    assert known.has_reached(link, position(3))


def test_p2_an_answer_without_a_position_is_no_position(known: Any) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    known.learn(link, "slave1", None)
    assert not known.has_reached(link, position(1))


def test_p4_an_answer_holds_for_known_for(known: Any, clock: Clock) -> None:
    link = Connected()
    known.learn(link, "slave1", position(5))
    clock.seconds = 30
    assert known.has_reached(link, position(5))
    clock.seconds = 30.1
    assert not known.has_reached(link, position(5))
    known.learn(link, "slave1", position(5))
    assert known.has_reached(link, position(5))
