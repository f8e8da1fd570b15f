"""Decide which servers of one database may be tried, as far as one process knows (F1, F2).

No server is pinged. A server that has failed is out of rotation for `downtime` seconds. Then a single reader tries it,
while the other readers use other servers, and the result decides for all readers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from replswitch.engine.weights import in_random_order
from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from replswitch.engine.servers import Server


class Health:
    """Knows which servers are out of rotation, and chooses among the others. The threads of a process share it.

    Args:
        downtime: seconds for which a server that has failed is out of rotation.
        clock: a monotonic clock, in seconds.

    Attributes:
        resting: each server that is out of rotation, with the time at which it may be tried again. Usually empty.
    """

    def __init__(self, downtime: float = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.downtime = downtime
        self._clock = clock
        self._lock = ProcessLock()
        self.resting: dict[Server, float] = {}

    def candidates(self, servers: Sequence[Server]) -> Iterator[Server]:
        """Return the servers in the order in which a reader should try them; leave out those that are out of rotation.

        A server whose downtime is over comes first, but only for one reader. If that reader calls neither `failed` nor
        `answered`, another reader gets the server after one more `downtime`.
        """
        tried = self._due(servers) if self.resting else None
        if tried is not None:
            yield tried
        yield from in_random_order([server for server in servers if server not in self.resting])

    def _due(self, servers: Sequence[Server]) -> Server | None:
        """Return a server whose downtime is over, else None. Restart its downtime, so that no other reader tries it."""
        now = self._clock()
        with self._lock:
            for server in servers:
                if self.resting.get(server, now + 1) <= now:
                    self.resting[server] = now + self.downtime
                    return server
        return None

    def failed(self, server: Server) -> bool:
        """Take a server out of rotation. Return True if it was in rotation."""
        with self._lock:
            rested = server in self.resting
            self.resting[server] = self._clock() + self.downtime
        return not rested

    def answered(self, server: Server) -> bool:
        """Put a server that has answered back into rotation. Return True if it was out of rotation."""
        if server not in self.resting:
            return False
        with self._lock:
            return self.resting.pop(server, None) is not None
