"""Events of servers and requests, for monitoring. Each event has a counter, and most are logged as well."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final, Literal

from replswitch.lock import ProcessLock
from replswitch.telemetry import counters

logger = logging.getLogger("replswitch.servers")

Event = Literal[
    "rest", "back", "behind", "takeover", "takeover-end", "moved-write", "replay", "master-lost", "master-back",
    "wait", "wait-expired", "marker", "resolve-failed", "resolve-back",
]  # fmt: skip

EVENTS: Final[dict[Event, str]] = {
    "rest": "a slave has failed, and is out of rotation for a time",
    "back": "a slave that was out of rotation has answered",
    "behind": "a slave is further behind than max_lag allows",
    "takeover": "the master has served the reads of a scope, because no slave could serve them",
    "takeover-end": "a slave serves reads again, after the master had to serve them",
    "moved-write": "a write that a slave refused was run on the master",
    "replay": "a request ran again on the master, because a write in slave state could not be moved there",
    "master-lost": "the master cannot be reached, or has become read-only",
    "master-back": "the master is available again",
    "wait": "a read has waited until the slave had caught up",
    "wait-expired": "a read has waited for the slave in vain",
    "marker": "the master has served a request, because no slave had what the marker of the request asks for",
    "resolve-failed": "the host name of slaves cannot be looked up",
    "resolve-back": "the host name of slaves can be looked up again",
}

_lock: Final = ProcessLock()


def count(event: Event, database: str, server: str) -> None:
    """Count an event."""
    counters.EVENTS.tally(event, database, server).add()


def tell(event: Event, database: str, server: str, text: str, *values: object) -> None:
    """Count an event and log it.

    Args:
        event: what has happened.
        database: its display name.
        server: the server's name.
        text: the message, with placeholders as in `logging`.
        values: the values for the placeholders.
    """
    count(event, database, server)
    facts = {"event": event, "database": database, "server": server}
    line = text % tuple(in_one_line(value) if isinstance(value, BaseException) else value for value in values)
    logger.warning("%s [event=%s database=%s server=%s]", line, event, database, server, extra={"replswitch": facts})


def in_one_line(error: BaseException) -> str:
    """Return the text of an error in one line. The texts of PostgreSQL's drivers have several lines."""
    return " ".join(str(error).split())


class Incident:
    """A condition that lasts for some time. Its start and its end are logged. In between, its events are only counted.

    Args:
        event: the event to count each time that the condition is observed.
        end_event: the event to count when the condition ends.
        database: the database's display name.

    Attributes:
        lasts: whether the condition has begun and not ended.
        latest: when it was last observed, by `time.monotonic`.
    """

    def __init__(self, event: Event, end_event: Event, database: str) -> None:
        self._event, self._end_event, self._database = event, end_event, database
        self.lasts = False
        self.latest = 0.0

    def happens(self, server: str, text: str, *values: object) -> None:
        """Count the condition, and log it if it begins. The arguments are those of `tell`."""
        with _lock:
            begins, self.lasts, self.latest = not self.lasts, True, monotonic()
        if begins:
            tell(self._event, self._database, server, text, *values)
        else:
            count(self._event, self._database, server)

    def ends(self, server: str, text: str, *values: object) -> None:
        """If the condition has begun, end it, and count and log its end. The arguments are those of `tell`."""
        with _lock:
            ended, self.lasts = self.lasts, False
        if ended:
            tell(self._end_event, self._database, server, text, *values)


def stats() -> dict[str, dict[tuple[str, ...], int]]:
    """Return how many statements have run, and how often each event has happened, in this process.

    The key ``"statements"`` has the number of statements for each ``(database, side, server, reason)``. Each key of
    `EVENTS` has the number of these events for each ``(database, server)``.
    """
    counts: dict[str, dict[tuple[str, ...], int]] = {event: {} for event in EVENTS}
    for (event, *place), number in counters.EVENTS.values().items():
        counts[event][tuple(place)] = number
    return {counters.STATEMENTS.name: counters.STATEMENTS.values(), **counts}
