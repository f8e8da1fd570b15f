"""The commits of this process outside any request."""

from __future__ import annotations

import time
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

from replswitch.lock import ProcessLock
from replswitch.request.marker import Marker

if TYPE_CHECKING:
    from replswitch.positions import Position

_changing: Final = ProcessLock()
_numbers: Final = count(1)


class Outside:
    """Counts and records the commits of this process outside any request.

    Attributes:
        commits: a number that each such commit on a master changes. If it changes during a request, the request does
            not run again (R5), because a thread that the request has started may have made the commit, which cannot be
            found out.
        wrote: the commits outside requests, as a marker, because a job that is started outside any request must see
            them. The marker is replaced, never changed.
        may_have_written_at: the time, in seconds since the epoch, at which a statement outside requests may last have
            written, if the driver does not show whether the statement has.
    """

    commits = 0
    wrote: Marker | None = None
    may_have_written_at: float = 0

    @classmethod
    def count(cls) -> None:
        """Count a commit."""
        cls.commits = next(_numbers)  # atomic, so it needs no lock

    @classmethod
    def record(cls, name: str, position: Position | None) -> None:
        """Record a commit.

        Args:
            name: the name of the replicated set.
            position: a slave that has reached this position has the write; None if the position is unknown.
        """
        now = time.time()
        wrote = Marker(now) if position is None else Marker(positions={name: position}, placed_at=now)
        with _changing:
            cls.wrote = wrote if cls.wrote is None else cls.wrote.merge(wrote, inf)
