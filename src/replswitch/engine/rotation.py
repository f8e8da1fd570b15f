"""Keep track of which slaves of one database are in rotation, and of their positions. All threads share this."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from replswitch.engine.events import count, tell
from replswitch.engine.health import Health
from replswitch.engine.lag import Lag, PositionClock
from replswitch.engine.weights import Weighted
from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link, Server, Servers
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")


class KnownPositions:
    """The positions that servers have reported. A server that is known to have reached a position is not asked again.

    A server is known by its name in the settings and the identity that it reports, because a name may lead to several
    servers, and clones of a server may report the same identity (P2).

    A lower answer replaces a higher one, because the server must have been reset, perhaps from a backup.

    An answer is used only for writes that were committed before it. If it seems to include a later write, replication
    was restarted in the meantime, and the same positions now stand for other writes (P4).

    Args:
        known_for: seconds for which an answer is used (P4).
        clock: returns the seconds since the epoch, like the times of writes.
    """

    def __init__(self, known_for: float, clock: Callable[[], float] = time.time) -> None:
        self._known_for = known_for
        self._clock = clock
        self._reached: dict[tuple[str, Hashable], tuple[Position, float]] = {}
        self._lock = ProcessLock()

    def has_reached(self, link: Link, position: Position, since: float) -> bool:
        """Return whether the server of a link is known to have reached a position.

        Args:
            link: the link.
            position: the position.
            since: when the latest write in the position was committed. Older answers are not used.
        """
        known = None if link.identity is None else self._reached.get((link.server.name, link.identity))
        if known is None or known[1] < since or not known[0].includes(position):
            return False
        return 0 <= self._clock() - known[1] <= self._known_for

    def learn(self, link: Link, identity: Hashable, position: Position | None) -> None:
        """Store what a server has answered on a link. Without a position, forget the position that was known."""
        server, now = (link.server.name, identity), self._clock()
        with self._lock:
            self._reached.pop(server, None)
            if position is not None:
                self._reached[server] = position, now  # at the end, so that the oldest answer is at the beginning
            # Behind a host name, addresses and identities may change without end.
            for old, (_, when) in list(self._reached.items()):
                if now - when <= self._known_for:
                    break
                del self._reached[old]
        link.identity = identity


class Rotation:
    """The slaves of one database.

    Args:
        name: the display name of the database.
        key: the key of the database in scopes.
        servers: all servers of the database.
        options: the options of the database.

    Attributes:
        known: the positions that the servers are known to have reached.
        resting: the servers that are out of rotation; usually none.
    """

    def __init__(self, name: str, key: object, servers: Servers, options: DatabaseOptions) -> None:
        self._name = name
        self._key = key
        self._master = servers.master
        self._downtime = options.downtime
        self._health = Health(options.downtime)
        self._weighted = Weighted(servers.slaves)  # replaced as a whole, because other threads may be drawing
        self.resting = self._health.resting
        self._lag = None if options.max_lag is None else Lag(options.max_lag)
        self._position_clock = PositionClock()
        self._too_far_behind: frozenset[Server] = frozenset()
        self._unmeasured: set[Server] = set()
        self.known = KnownPositions(options.known_for)

    def first(self, scope: Scope, port: Port) -> Server | None:
        """Return the slave that a scope should try first: the one that it has chosen, else a random one, by weight.

        Returns:
            the slave; None if `candidates` must find it, because slaves are out of rotation, have failed in the scope,
            or lag too much.
        """
        chosen: Server | None = scope.slaves.get(self._key)
        weighted = self._weighted
        if chosen is not None or self.resting or scope.avoided or not weighted.servers:
            return chosen
        slave = weighted.draw()
        return slave if self._lag is None or self._is_near(slave, port) else None

    def candidates(self, scope: Scope, port: Port, first: Server | None) -> Iterator[Server]:
        """Return the slaves in the order in which a scope should try them. The slave ``first`` comes first.

        Slaves that are out of rotation, that have failed in the scope (F1, F2), or whose lag exceeds `max_lag` are
        left out, except for ``first``.
        """
        if first is not None:
            yield first
        for slave in self._health.candidates(self._weighted.servers):
            if slave is first or (self._key, slave) in scope.avoided:
                continue
            if self._lag is None or self._is_near(slave, port):
                yield slave

    # Faults

    def rest(self, server: Server, error: BaseException) -> None:
        """Take a server out of rotation for `downtime`, for the whole process."""
        server.lost_at = time.monotonic()
        if self._health.failed(server):
            text = "The server %s is not available, and is out of rotation for %g s: %s"
            tell("rest", self._name, server.name, text, server.name, self._downtime, error)

    def has_answered(self, server: Server) -> None:
        """Put a server back into rotation after it has answered again."""
        if self._health.answered(server):
            tell("back", self._name, server.name, "The server %s is back in rotation.", server.name)

    def has_waited(self, server: Server, *, has_caught_up: bool) -> None:
        """Count that a read has waited for a slave to catch up (the option ``wait``)."""
        count("wait" if has_caught_up else "wait-expired", self._name, server.name)

    # Lag (the option max_lag)

    def _is_near(self, slave: Server, port: Port) -> bool:
        lag = self._lag
        assert lag is not None  # noqa: S101 - the caller has checked it; for the type checker
        is_near = lag.admits(slave, partial(self._seconds_behind, slave, port.driver, port.borrowed))
        if is_near == (slave in self._too_far_behind):
            self._too_far_behind ^= {slave}
            if is_near:
                tell("back", self._name, slave.name, "The lag of the slave %s is within max_lag again.", slave.name)
            else:
                text = "The slave %s is more than %g s behind (max_lag), so it gets no reads."
                tell("behind", self._name, slave.name, text, slave.name, lag.max_lag)
        return is_near

    def _seconds_behind(
        self, slave: Server, driver: Driver, borrowed: Callable[[Server], AbstractContextManager[Raw]]
    ) -> float:
        with borrowed(slave) as raw:
            seconds = driver.seconds_behind(raw)
            if seconds is not None:
                return seconds
            written = reached = None
            if driver.has_common_positions(raw):
                with borrowed(self._master) as master:
                    # Ask the master first, because a slave without lag is then at this position or later.
                    written = driver.fetch_position(master)[1]
                reached = driver.fetch_position(raw)[1]
        if written is None or reached is None or not str(written):
            if slave not in self._unmeasured:
                self._unmeasured.add(slave)
                text = "max_lag has no effect on %s, because no replication status or position shows its lag."
                logger.warning(text, slave.name)
            return 0
        return self._position_clock.seconds_behind(written, reached)


def last_resort(chosen: Server | None, servers: Sequence[Server]) -> list[Server]:
    """Return all servers to try without a master, even those out of rotation. The scope's chosen server comes first."""
    return sorted(servers, key=lambda server: server is not chosen)
