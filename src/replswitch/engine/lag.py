"""How far behind the slaves are, in seconds: measured beside the readers, once in a while (the option ``max_lag``)."""

from __future__ import annotations

import logging
import random
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Final

from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.engine.servers import Server
    from replswitch.positions import Position

logger = logging.getLogger("replswitch.servers")

#: Seconds between two measurements of a slave, give or take a fifth, so that processes do not go in step.
EVERY: Final = 3

#: A measurement that is older than this, in seconds, says nothing any more: the next reader waits for a new one.
STALE: Final = 15

#: How many of the master's positions are remembered, for slaves that may not be asked how far behind they are.
POSITIONS_KEPT: Final = 200


class Lag:
    """The latest measurement of each slave of one database. Shared by the threads of a process.

    Args:
        max_lag: seconds; a slave further behind gets no reads.
        clock: seconds that only grow.
    """

    def __init__(self, max_lag: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_lag = max_lag
        self._clock = clock
        self._lock = ProcessLock()
        self._measured: dict[Server, tuple[float, float]] = {}  # when the next is due, and the seconds

    def admits(self, slave: Server, measure: Callable[[], float]) -> bool:
        """Say whether a slave is near enough; where that is not known any more, measure.

        Args:
            slave: the slave.
            measure: returns how many seconds it is behind, `math.inf` where its replication has stopped. It runs in a
                thread of its own, but for the first time and after a long pause.
        """
        known = due, seconds = self._measured.get(slave, (-inf, 0))
        now = self._clock()
        if now >= due and self._is_mine(slave, known, now):
            if now - due > STALE - EVERY:
                self._measure(slave, measure)
                seconds = self._measured[slave][1]
            else:
                threading.Thread(target=self._measure, args=(slave, measure), daemon=True).start()
        return seconds <= self.max_lag

    def _is_mine(self, slave: Server, known: tuple[float, float], now: float) -> bool:
        """Reserve the measurement of a slave for this thread; False if another one is measuring it, or has just done.

        Not for longer than `STALE`: the measurement may come to no end, as in a process that was forked meanwhile.
        """
        with self._lock:
            is_mine = self._measured.get(slave, known) is known
            if is_mine:
                self._measured[slave] = (now + STALE, known[1])
        return is_mine

    def _measure(self, slave: Server, measure: Callable[[], float]) -> None:
        try:
            seconds = measure()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises; the next reader finds out what it means
            logger.info("How far the slave %s is behind cannot be measured: %s", slave.name, error)
            seconds = self._measured[slave][1]  # as before
        self._measured[slave] = (self._clock() + EVERY * random.uniform(0.8, 1.2), seconds)  # noqa: S311 - spreads load


class PositionClock:
    """Tells how far behind a slave is from what the master was seen to have, and when.

    For accounts that may not ask for the state of replication. It is as exact as the measurements are frequent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._seen: list[tuple[float, Position]] = []

    def seconds_behind(self, master: Position, slave: Position) -> float:
        """Return the seconds since the master was seen to have something that the slave still lacks; 0 if nothing."""
        now = self._clock()
        with self._lock:
            # What the master itself lacks is from before replication was begun anew (P4).
            seen = [each for each in self._seen if master.includes(each[1])]
            if not seen or seen[-1][1] != master:
                seen.append((now, master))
            self._seen = seen[-POSITIONS_KEPT:]
        lacking = [moment for moment, position in seen if not slave.includes(position)]
        return now - lacking[0] if lacking else 0.0
