"""Measure the replication lag of the slaves in seconds, periodically and in the background (option ``max_lag``)."""

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

#: Seconds between two measurements of a slave, varied by up to a fifth, so that processes measure at different moments.
EVERY: Final = 3

#: The greatest age, in seconds, at which a measurement is used. After that, the next reader waits for a new one.
STALE: Final = 15

#: How many positions of the master are kept, for slaves whose lag cannot be queried.
POSITIONS_KEPT: Final = 200


class Lag:
    """The latest measurement of each slave of one database. The threads of a process share it.

    Args:
        max_lag: seconds; a slave further behind gets no reads.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, max_lag: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_lag = max_lag
        self._clock = clock
        self._lock = ProcessLock()
        self._measured: dict[Server, tuple[float, float]] = {}  # when the next measurement is due; the latest lag

    def admits(self, slave: Server, measure: Callable[[], float]) -> bool:
        """Return whether the lag of a slave is within ``max_lag``; measure it if the latest measurement is too old.

        Args:
            slave: the slave.
            measure: returns the lag in seconds; `math.inf` if replication has stopped. It is called in a background
                thread, except for the first time and after a long pause.
        """
        known = due, seconds = self._measured.get(slave, (-inf, 0))
        now = self._clock()
        if now >= due and self._is_mine(slave, known, now):
            if now - due > STALE - EVERY:
                self._measure(slave, measure)
                seconds = self._measured.get(slave, known)[1]
            else:
                threading.Thread(target=self._measure, args=(slave, measure), daemon=True).start()
        return seconds <= self.max_lag

    def forget(self, slave: Server) -> None:
        """Forget a slave whose address was removed."""
        self._measured.pop(slave, None)

    def _is_mine(self, slave: Server, known: tuple[float, float], now: float) -> bool:
        """Reserve the measurement for this thread. Return False if another thread is measuring, or has just measured.

        The reservation ends after `STALE` seconds, because a measurement may never end, for example after a fork.
        """
        with self._lock:
            is_mine = self._measured.get(slave, known) is known
            if is_mine:
                self._measured[slave] = (now + STALE, known[1])
        return is_mine

    def _measure(self, slave: Server, measure: Callable[[], float]) -> None:
        try:
            seconds = measure()
        except Exception as error:  # noqa: BLE001 - any error of a driver; the next reader handles it
            logger.info("The lag of the slave %s cannot be measured: %s", slave.name, error)
            seconds = self._measured.get(slave, (0, 0))[1]  # keep the latest measurement
        self._measured[slave] = (self._clock() + EVERY * random.uniform(0.8, 1.2), seconds)  # noqa: S311 - spreads load


class PositionClock:
    """Estimates the lag of a slave from earlier positions of the master, and the times when they were queried.

    It is for database accounts without the right to query the replication status. Its precision is the interval
    between measurements.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._seen: list[tuple[float, Position]] = []

    def seconds_behind(self, master: Position, slave: Position) -> float:
        """Return the seconds since the master first had a position that the slave has not reached; 0 if there is none.

        Only positions that were passed to this method are considered.
        """
        now = self._clock()
        with self._lock:
            # Drop positions that the master itself lacks, because they date from before a restart of replication (P4).
            seen = [each for each in self._seen if master.includes(each[1])]
            if not seen or seen[-1][1] != master:
                seen.append((now, master))
            self._seen = seen[-POSITIONS_KEPT:]
        lacking = [moment for moment, position in seen if not slave.includes(position)]
        return now - lacking[0] if lacking else 0.0
