"""How far the servers of one database are known to have come (P2, P4)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from replswitch.engine.servers import Link
    from replswitch.positions import Position


class KnownPositions:
    """What the links of one process were told. A server that is known to have reached a position is not asked again.

    A lower answer replaces what was known: the server was set back, from a backup perhaps.

    Args:
        known_for: seconds for which an answer holds (P4).
        clock: seconds that only grow.
    """

    def __init__(self, known_for: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._known_for = known_for
        self._clock = clock
        self._reached: dict[Hashable, tuple[Position, float]] = {}
        self._lock = threading.Lock()

    def has_reached(self, link: Link, position: Position) -> bool:
        """Say whether the server that a link leads to is known to have reached a position."""
        known = None if link.identity is None else self._reached.get(link.identity)
        return known is not None and known[0].includes(position) and self._clock() - known[1] <= self._known_for

    def learn(self, link: Link, identity: Hashable, position: Position | None) -> None:
        """Keep what a server has answered through a link."""
        with self._lock:
            if position is None:
                self._reached.pop(identity, None)
            else:
                self._reached[identity] = position, self._clock()
        link.identity = identity

    def forget(self) -> None:
        """Forget all answers: the master's own sequence has gone back, so positions mean something else now (P4)."""
        with self._lock:
            self._reached.clear()
