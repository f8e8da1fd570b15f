"""The counters of this process. Counting costs one call of a function in C, and no lock."""

from __future__ import annotations

import os
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Labels: TypeAlias = "tuple[str, ...]"

Sink: TypeAlias = "Callable[[Family, Labels], Callable[[int], object]]"
"""Finds a counter of another system, such as OpenTelemetry, by its labels. Returns the function that adds to it."""

_lock: Final = ProcessLock()


class Tally:
    """One counter. Any number of threads may call `add` at the same time, and no call is lost.

    ``next()`` of `itertools.count` is atomic. The number can be read only by calling it once more, so the calls that
    only read are subtracted.

    Args:
        labels: the values of the labels whose names its `Family` has.

    Attributes:
        add: a function that counts one more.
    """

    __slots__ = ("_others", "_reads", "_steps", "add", "labels")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._steps: tuple[Callable[[], int], ...] = (count().__next__,)
        self._reads = 0
        self._others: tuple[Callable[[int], object], ...] = ()
        self.add: Callable[[], object] = self._steps[0]

    def value(self) -> int:
        """Return the number. The caller must hold the lock."""
        number = sum(step() for step in self._steps) - self._reads
        self._reads += len(self._steps)
        return number

    def begin_again(self) -> None:
        """Begin at 0 again."""
        number = self.value()
        self._reads += number

    def forward(self, other: Callable[[int], object]) -> None:
        """Also add to another counter, now the number so far, then 1 for each `add`. The caller must hold the lock."""
        # Calls of `add` from now on count by a new step, so that the present number does not include them.
        before, step, others = self._steps, count().__next__, (*self._others, other)
        self._steps, self._others = (*before, step), others
        self.add = partial(_add_everywhere, step, others)
        number = sum(each() for each in before) - self._reads
        self._reads += len(before)
        if number:
            other(number)


def _add_everywhere(step: Callable[[], object], others: tuple[Callable[[int], object], ...]) -> None:
    step()
    for other in others:
        other(1)


class Family:
    """The counters with the same name, which differ in the values of their labels.

    Args:
        name: the name in `replswitch.stats` and, after a prefix, in other systems.
        labels: the names of the labels.
        text: what is counted.
    """

    def __init__(self, name: str, labels: Labels, text: str) -> None:
        self.name, self.labels, self.text = name, labels, text
        self._tallies: dict[Labels, Tally] = {}

    def tally(self, *labels: str) -> Tally:
        """Return the counter with these values of the labels. It is made on first use."""
        return self._tallies.get(labels) or self._make(labels)

    def _make(self, labels: Labels) -> Tally:
        with _lock:
            tally = self._tallies.get(labels)
            if tally is None:
                tally = Tally(labels)
                for sink in _sinks:
                    tally.forward(sink(self, labels))
                self._tallies[labels] = tally
            return tally

    def values(self) -> dict[Labels, int]:
        """Return the number of each counter that is not 0, by the values of its labels."""
        with _lock:
            numbers = {labels: tally.value() for labels, tally in self._tallies.items()}
        return {labels: number for labels, number in numbers.items() if number}

    def __iter__(self) -> Iterator[Tally]:
        return iter(list(self._tallies.values()))


STATEMENTS: Final = Family(
    "statements", ("database", "side", "server", "reason"), "Statements of the application that have run."
)
EVENTS: Final = Family("events", ("event", "database", "server"), "Events of the servers and of requests.")

FAMILIES: Final = (STATEMENTS, EVENTS)

_sinks: Final[list[Sink]] = []


def forward(sink: Sink) -> None:
    """From now on, also count in another system. The counters there begin with the numbers counted so far."""
    with _lock:
        _sinks.append(sink)
        for family in FAMILIES:
            for tally in family:
                tally.forward(sink(family, tally.labels))


def _forget_parent() -> None:
    for family in FAMILIES:
        for tally in family:
            tally.begin_again()


# A forked process begins at 0, so that what its parent has counted is not counted twice.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
