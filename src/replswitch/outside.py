"""The commits of this process outside any request."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from replswitch.lock import ProcessLock
from replswitch.request.marker import Marker

if TYPE_CHECKING:
    from replswitch.positions import Position
    from replswitch.request.marker import Write

_changing: Final = ProcessLock()
_numbers: Final = count(1)

#: How many commits are kept before they are merged.
_MOST: Final = 100


class Outside:
    """Counts and records the commits of this process outside any request.

    Attributes:
        commits: a number that each such commit on a master changes. If it changes during a request, the request does
            not run again (R5), because the commit may be that of a thread that the request has started.
        may_have_written_at: the time, in seconds since the epoch, of the latest statement outside requests that may
            have written, with a driver that does not show whether it has; 0 without one.
        merged: the commits that `wrote` has returned. It is replaced, never changed.
    """

    commits = 0
    may_have_written_at: float = 0
    merged = Marker()

    _latest: Final[deque[Write]] = deque()

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
        # Merging takes time, and only jobs need the result, so it is done later. Adding is atomic, so it needs no lock.
        cls._latest.append((name, position, time.time()))
        if len(cls._latest) > _MOST:
            cls.wrote()

    @classmethod
    def wrote(cls) -> Marker:
        """Return the commits outside requests, as a marker. A job that is started outside any request must see them."""
        latest: list[Write] = []
        with _changing:
            try:
                with suppress(IndexError):  # until none is left
                    while True:
                        latest.append(cls._latest.popleft())
                cls.merged = cls.merged.with_writes(*latest)
            except BaseException:  # such as Celery's time limit, which interrupts any function
                cls._latest.extendleft(reversed(latest))
                raise
            return cls.merged
