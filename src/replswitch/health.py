"""Which servers of one database may be tried, as far as one process knows (F1, F2).

Nobody pings. A server that has failed a reader rests for `downtime`; then one single reader tries it, while the others
go on elsewhere, and what he meets decides for all.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect
from itertools import accumulate
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
    """

    def __init__(self, downtime: float = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.downtime = downtime
        self._clock = clock
        self._lock = threading.Lock()
        # Until when each server rests that has failed and has not answered since. Mostly empty.
        self._resting: dict[Choosable, float] = {}
        # Those of a set that do not rest; forgotten when one begins or ends its rest.
        self._awake: tuple[Sequence[Choosable], tuple[Choosable, ...]] = ((), ())
        self._weights: tuple[Sequence[Choosable], list[float]] = ((), [])

    def candidates(self, servers: Sequence[S]) -> Iterable[S]:
        """Return the servers in the order in which a reader should try them; those that rest are left out.

        A server whose rest is over comes first, for one reader. If he tells neither `failed` nor `answered`, another
        one gets it after a further `downtime`.
        """
        return self._in_turn(servers) if self._resting or len(servers) > 1 else servers

    def _in_turn(self, servers: Sequence[S]) -> Iterator[S]:
        if self._resting:
            tried = self._due(servers)
            if tried is not None:
                yield tried
            servers = self._awake_of(servers)
        if len(servers) < 2:
            yield from servers
            return
        first = self._pick(servers)
        yield first
        others = [server for server in servers if server is not first]
        # Each in its turn as likely as its weight: Efraimidis and Spirakis, "Weighted random sampling", 2006.
        yield from sorted(others, key=lambda server: random.random() ** (1 / server.weight), reverse=True)  # noqa: S311 - spreads load, hides nothing

    def _awake_of(self, servers: Sequence[S]) -> tuple[S, ...]:
        with self._lock:
            known, awake = self._awake
            if known is not servers:
                awake = tuple(server for server in servers if server not in self._resting)
                self._awake = servers, awake
            return awake  # type: ignore[return-value]  # of these very servers

    def _pick(self, servers: Sequence[S]) -> S:
        known, sums = self._weights
        if known is not servers:
            sums = list(accumulate(server.weight for server in servers))
            self._weights = servers, sums
        return servers[bisect(sums, random.random() * sums[-1], hi=len(sums) - 1)]  # noqa: S311 - likewise

    def _due(self, servers: Sequence[S]) -> S | None:
        """Return a server whose rest is over, and let it rest on for everybody else."""
        now = self._clock()
        with self._lock:
            for server in servers:
                if self._resting.get(server, now + 1) <= now:
                    self._resting[server] = now + self.downtime
                    return server
        return None

    def failed(self, server: Choosable) -> bool:
        """Let a server rest. True if it did not rest before."""
        with self._lock:
            rested, self._awake = server in self._resting, ((), ())
            self._resting[server] = self._clock() + self.downtime
        return not rested

    def answered(self, server: Choosable) -> bool:
        """Take a server back that has answered. True if it rested before."""
        if server not in self._resting:
            return False
        with self._lock:
            self._awake = ((), ())
            return self._resting.pop(server, None) is not None
