"""Events of servers: each has a log line and a counter, for monitoring."""

from __future__ import annotations

import logging
from collections import Counter
from time import monotonic
from typing import Final, Literal

from replswitch.lock import ProcessLock

logger = logging.getLogger("replswitch.servers")

Event = Literal[
    "rest", "back", "behind", "takeover", "takeover-end", "moved-write", "replay", "master-lost", "master-back"
]

EVENTS: Final[dict[Event, str]] = {
    "rest": "a slave has failed, and is out of rotation for a time",
    "back": "a slave that was out of rotation has answered",
    "behind": "a slave is further behind than max_lag allows",
    "takeover": "the master has served the reads of a scope, because no slave could",
    "takeover-end": "a slave serves reads again after a takeover",
    "moved-write": "a write that a slave refused was run on the master",
    "replay": "a request ran again on the master, because a write in slave state could not be moved there",
    "master-lost": "the master cannot be reached, or has become read-only",
    "master-back": "the master is available again",
}

_counts: Final[Counter[tuple[Event, str, str]]] = Counter()
_lock: Final = ProcessLock()


def count(event: Event, database: str, server: str) -> None:
    """Count an event."""
    with _lock:
        _counts[event, database, server] += 1


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
    """Return the text of an error. That of PostgreSQL's drivers has several lines."""
    return " ".join(str(error).split())


class Incident:
    """A condition with a duration: one log line at its start and one at its end. In between, events are only counted.

    Args:
        event: counted each time that the condition is observed.
        end_event: counted when the condition ends.
        database: the database's name in markers.

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
        """Count and log the end, unless another thread has done so. The arguments are those of `tell`."""
        with _lock:
            ended, self.lasts = self.lasts, False
        if ended:
            tell(self._end_event, self._database, server, text, *values)


def stats() -> dict[Event, dict[tuple[str, str], int]]:
    """Return how often each event has happened in this process, by ``(database, server)``.

    The events are the keys of `EVENTS`.
    """
    with _lock:
        counted = dict(_counts)
    counts: dict[Event, dict[tuple[str, str], int]] = {event: {} for event in EVENTS}
    for (event, database, server), number in counted.items():
        counts[event][database, server] = number
    return counts
