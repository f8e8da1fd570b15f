"""Draw servers at random, in proportion to their weights."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from random import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replswitch.engine.servers import Server


class Weighted:
    """Servers to draw from. Threads may draw at the same time, because the object never changes.

    Args:
        servers: the servers.

    Attributes:
        servers: see the argument.
    """

    __slots__ = ("_starts", "_total", "servers")

    def __init__(self, servers: Sequence[Server]) -> None:
        # Each server has a part of the range from 0 to the sum of all weights. Its weight is the length of the part.
        *starts, total = accumulate((server.weight for server in servers), initial=0.0)
        self.servers, self._starts, self._total = servers, starts, total

    def draw(self) -> Server:
        """Return one of the servers. There must be one."""
        return self.servers[bisect(self._starts, random() * self._total) - 1]  # noqa: S311 - spreads load


def in_random_order(servers: Sequence[Server]) -> Iterator[Server]:
    """Yield all servers. Each is drawn from those that remain."""
    left = list(servers)
    while left:
        drawn = Weighted(left).draw()
        left.remove(drawn)
        yield drawn
