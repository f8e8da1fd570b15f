"""Which servers of one database may be tried, as far as one process knows (F1, F2).

Nobody pings. A server that has failed a reader rests for `downtime`; then one single reader tries it, while the others
go on elsewhere, and what he meets decides for all.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect
from itertools import accumulate
from random import random
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Choosable(Protocol):
    """A server of any binding: one object for all threads of a process."""

    @property
    def name(self) -> str:
        """What people know it by."""

    @property
    def weight(self) -> float:
        """Its share of the reads, compared with those of the others; above 0."""


S = TypeVar("S", bound=Choosable)


class Health:
    """The servers that rest, and the choice among the others. Shared by the threads of a process.

    Args:
        downtime: seconds for which a server that has failed is left alone.
        clock: seconds that only grow.

    Attributes:
        resting: until when each server rests that has failed and has not answered since. Mostly empty.
    """

    def __init__(self, downtime: float = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.downtime = downtime
        self._clock = clock
        self._lock = threading.Lock()
        self.resting: dict[Choosable, float] = {}
        # Those of a set that do not rest; forgotten when one begins or ends its rest.
        self._awake: tuple[Sequence[Choosable], tuple[Choosable, ...]] = ((), ())
        # The servers whose weights were added up last, the sums, and the index of the last one.
        self._weights: tuple[Sequence[Choosable], list[float], int] = ((), [], 0)

    def candidates(self, servers: Sequence[S]) -> Iterable[S]:
        """Return the servers in the order in which a reader should try them; those that rest are left out.

        A server whose rest is over comes first, for one reader. If he tells neither `failed` nor `answered`, another
        one gets it after a further `downtime`.
        """
        if self.resting:
            return self._with_one_that_is_due(servers)
        if len(servers) < 2:
            return servers
        known, sums, last = self._weights
        if known is not servers:
            sums, last = self._weigh(servers)
        return self._from(servers, bisect(sums, random() * sums[last], 0, last))  # noqa: S311 - spreads load, hides nothing

    def _weigh(self, servers: Sequence[S]) -> tuple[list[float], int]:
        sums = list(accumulate(server.weight for server in servers))
        self._weights = servers, sums, len(sums) - 1
        return sums, len(sums) - 1

    @staticmethod
    def _from(servers: Sequence[S], index: int) -> Iterator[S]:
        yield servers[index]  # mostly it will do
        others = [*servers[:index], *servers[index + 1 :]]
        # Each in its turn as likely as its weight: Efraimidis and Spirakis, "Weighted random sampling", 2006.
        yield from sorted(others, key=lambda server: random() ** (1 / server.weight), reverse=True)  # noqa: S311 - likewise

    def _with_one_that_is_due(self, servers: Sequence[S]) -> Iterator[S]:
        tried = self._due(servers)
        if tried is not None:
            yield tried
        awake = self._awake_of(servers)
        if len(awake) < 2:
            yield from awake
        else:
            sums, last = self._weigh(awake) if self._weights[0] is not awake else self._weights[1:]
            yield from self._from(awake, bisect(sums, random() * sums[last], 0, last))  # noqa: S311 - likewise

    def _awake_of(self, servers: Sequence[S]) -> tuple[S, ...]:
        with self._lock:
            known, awake = self._awake
            if known is not servers:
                awake = tuple(server for server in servers if server not in self.resting)
                self._awake = servers, awake
            return awake  # type: ignore[return-value]  # of these very servers

    def _due(self, servers: Sequence[S]) -> S | None:
        """Return a server whose rest is over, and let it rest on for everybody else."""
        now = self._clock()
        with self._lock:
            for server in servers:
                if self.resting.get(server, now + 1) <= now:
                    self.resting[server] = now + self.downtime
                    return server
        return None

    def failed(self, server: Choosable) -> bool:
        """Let a server rest. True if it did not rest before."""
        with self._lock:
            rested, self._awake = server in self.resting, ((), ())
            self.resting[server] = self._clock() + self.downtime
        return not rested

    def answered(self, server: Choosable) -> bool:
        """Take a server back that has answered. True if it rested before."""
        if server not in self.resting:
            return False
        with self._lock:
            self._awake = ((), ())
            return self.resting.pop(server, None) is not None
