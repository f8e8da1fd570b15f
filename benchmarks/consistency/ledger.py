"""What the visitors of `consistency` wrote and read: the reads that were stale, and those possible on the slave.

All times are of `time.monotonic()`, which is the same for all threads of a machine.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from math import inf
from typing import Final

#: Which server it was that served a read.
MASTER: Final = "master"
SLAVE: Final = "slave"


@dataclass(frozen=True, slots=True)
class Read:
    """One answered GET.

    Attributes:
        visitor: whose.
        sent: when it was sent.
        shown: the numbers of the visitor's writes that the answer shows.
        server: which server the database says it was: `MASTER` or `SLAVE`.
    """

    visitor: int
    sent: float
    shown: frozenset[int]
    server: str


@dataclass(slots=True)
class Tally:
    """The numbers of reads by kind. Two tallies are added with ``+``.

    Attributes:
        reads: all that were answered.
        stale: those that lack a write of their visitor.
        on_slave: those that the slave served, stale or not.
        possible: those that the slave could have served: it had all that the visitor had written.
        taken: those of the possible ones that the slave did serve.
        failed: requests without the right answer; nothing else counts them.
    """

    reads: int = 0
    stale: int = 0
    on_slave: int = 0
    possible: int = 0
    taken: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def stale_share(self) -> float:
        """The share of the reads that were stale."""
        return self.stale / self.reads if self.reads else 0.0

    @property
    def slave_share(self) -> float:
        """The share of the reads that the slave served."""
        return self.on_slave / self.reads if self.reads else 0.0

    @property
    def ideal(self) -> float:
        """The share of the reads that the slave could have served."""
        return self.possible / self.reads if self.reads else 0.0

    @property
    def of_ideal(self) -> float:
        """How much of the ideal was reached; all of it where there was nothing to reach."""
        return self.taken / self.possible if self.possible else 1.0


@dataclass(slots=True)
class Ledger:
    """Everything that was seen of one side, by the visitors and by the watcher of the slave."""

    _answered: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    _appeared: dict[tuple[int, int], float] = field(default_factory=dict)
    _reads: list[Read] = field(default_factory=list)
    _failures: list[tuple[int, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrote(self, visitor: int, number: int, answered: float) -> None:
        """Note that a visitor has the response to a POST, so the next reads must show its write."""
        with self._lock:
            self._answered[visitor][number] = answered

    def read(self, read: Read) -> None:
        """A visitor has got the answer to a GET."""
        with self._lock:
            self._reads.append(read)

    def failed(self, visitor: int, what: str) -> None:
        """A visitor has got no answer, or a wrong one."""
        with self._lock:
            self._failures.append((visitor, what))

    def appeared(self, visitor: int, number: int, at: float) -> None:
        """A write was seen on the slave; the first time counts."""
        with self._lock:
            self._appeared.setdefault((visitor, number), at)

    @property
    def failures(self) -> list[str]:
        """The faults as text."""
        return [f"visitor {visitor}: {what}" for visitor, what in self._failures]

    @property
    def delays(self) -> list[float]:
        """How many seconds after its answer each write was seen on the slave, if it was."""
        answered = {(visitor, number): at for visitor, own in self._answered.items() for number, at in own.items()}
        return [self._appeared[key] - at for key, at in answered.items() if key in self._appeared]

    def is_stale(self, read: Read) -> bool:
        """Whether a read lacks a write of its visitor that was answered before the read was sent."""
        return not self._written_before(read) <= read.shown

    def was_possible(self, read: Read) -> bool:
        """Whether the slave already had, when a read was sent, all that its visitor had written by then."""
        return all(
            self._appeared.get((read.visitor, number), inf) <= read.sent for number in self._written_before(read)
        )

    def tally(self, visitors: frozenset[int] | set[int] | range) -> Tally:
        """Count the reads of some visitors."""
        tally = Tally(failed=sum(visitor in visitors for visitor, _ in self._failures))
        for read in self._reads:
            if read.visitor in visitors:
                on_slave, possible = read.server == SLAVE, self.was_possible(read)
                tally.reads += 1
                tally.stale += self.is_stale(read)
                tally.on_slave += on_slave
                tally.possible += possible
                tally.taken += on_slave and possible
        return tally

    def _written_before(self, read: Read) -> set[int]:
        # An answer that had not come yet promised nothing: whether that write is seen is open.
        answered = self._answered.get(read.visitor, {})
        return {number for number, at in answered.items() if at <= read.sent}
