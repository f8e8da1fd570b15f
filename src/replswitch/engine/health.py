"""Which servers of one database may be tried, as far as one process knows (F1, F2).

No server is pinged. One that has failed is out of rotation for `downtime`; then one single reader tries it, while the
others go on elsewhere, and the outcome decides for all.
"""

from __future__ import annotations

import time
from bisect import bisect
from itertools import accumulate, cycle
from random import random
from typing import TYPE_CHECKING, Final

from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from replswitch.engine.servers import Server


#: How many orders there are for each server that comes first.
_ORDERS: Final = 50


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
        self._lock = ProcessLock()
        self.resting: dict[Server, float] = {}
        # The servers whose weights were added up last, the sums, and for each server orders that begin with it.
        self._weights: tuple[Sequence[Server], list[float], list[Iterator[list[Server]]]] = ((), [], [])

    def candidates(self, servers: Sequence[Server]) -> Iterable[Server]:
        """Return the servers in the order in which a reader should try them; those that rest are left out.

        A server whose rest is over comes first, for one reader. If that reader reports neither `failed` nor `answered`,
        another one gets it after a further `downtime`.
        """
        if self.resting:
            return self._while_some_rest(servers)
        if len(servers) < 2:
            return servers
        known, sums, orders = self._weights
        if known is not servers:
            sums = list(accumulate(server.weight for server in servers))
            orders = [cycle(_orders(server, servers)) for server in servers]
            self._weights = servers, sums, orders
        return next(orders[bisect(sums, random() * sums[-1], 0, len(sums) - 1)])  # noqa: S311 - spreads load, hides nothing

    def _while_some_rest(self, servers: Sequence[Server]) -> Iterator[Server]:
        tried = self._due(servers)
        if tried is not None:
            yield tried
        yield from _by_weight([server for server in servers if server not in self.resting])

    def _due(self, servers: Sequence[Server]) -> Server | None:
        """Return a server whose rest is over, and let it rest on for everybody else."""
        now = self._clock()
        with self._lock:
            for server in servers:
                if self.resting.get(server, now + 1) <= now:
                    self.resting[server] = now + self.downtime
                    return server
        return None

    def failed(self, server: Server) -> bool:
        """Let a server rest. True if it did not rest before."""
        with self._lock:
            rested = server in self.resting
            self.resting[server] = self._clock() + self.downtime
        return not rested

    def answered(self, server: Server) -> bool:
        """Take a server back that has answered. True if it rested before."""
        if server not in self.resting:
            return False
        with self._lock:
            return self.resting.pop(server, None) is not None


def _orders(first: Server, servers: Sequence[Server]) -> list[list[Server]]:
    """Return orders of all servers that begin with one of them. They are made once, because mostly the first serves."""
    others = [server for server in servers if server is not first]
    return [[first, *_by_weight(others)] for _ in range(_ORDERS)]


def _by_weight(servers: list[Server]) -> list[Server]:
    """Return servers in a random order, each in its turn as likely as its weight.

    Efraimidis and Spirakis, "Weighted random sampling", 2006.
    """
    return sorted(servers, key=lambda server: random() ** (1 / server.weight), reverse=True)  # noqa: S311 - likewise
