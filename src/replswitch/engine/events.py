"""What happens to servers: a log line and a counter each, for monitoring."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final, Literal

logger = logging.getLogger("replswitch.servers")

Event = Literal["rest", "back", "behind", "takeover", "moved-write", "master-lost", "replay"]

EVENTS: Final[dict[Event, str]] = {
    "rest": "a slave has failed, and is left alone for a time",
    "back": "a slave that rested has answered",
    "behind": "a slave is further behind than it may be",
    "takeover": "the master has served the reads of a scope, because no slave could",
    "moved-write": "a write that a slave refused was run on the master",
    "replay": "a request ran again on the master, because a write in slave state could not move there",
    "master-lost": "the master cannot be reached, or has become read-only",
}

_counts: Final[Counter[tuple[Event, str, str]]] = Counter()
_lock: Final = threading.Lock()


def count(event: Event, database: str, server: str) -> None:
    """Count an event."""
    with _lock:
        _counts[event, database, server] += 1


def tell(event: Event, database: str, server: str, text: str, *values: object) -> None:
    """Count an event and log it.

    Args:
        event: what has happened.
        database: the database's name in markers.
        server: the server's name.
        text: the same for people, as `logging` takes it.
        values: likewise.
    """
    count(event, database, server)
    facts = {"event": event, "database": database, "server": server}
    logger.warning(
        "%s [event=%s database=%s server=%s]", text % values, event, database, server, extra={"replswitch": facts}
    )


def stats() -> dict[Event, dict[tuple[str, str], int]]:
    """Return how often each event has happened in this process, by ``(database, server)``.

    The events: "rest", "back", "behind", "takeover", "moved-write", "master-lost" and "replay".
    """
    with _lock:
        counted = dict(_counts)
    told: dict[Event, dict[tuple[str, str], int]] = {event: {} for event in EVENTS}
    for (event, database, server), number in counted.items():
        told[event][database, server] = number
    return told
