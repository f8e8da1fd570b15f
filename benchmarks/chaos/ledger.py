"""The responses of a chaos run, and the faults in them."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROMOTION = "a slave promoted"
"""The name of a fault."""


@dataclass(frozen=True)
class Write:
    """A POST, and its response.

    Attributes:
        client: the client that wrote.
        number: its own count of the client's writes.
        token: unique.
        rows: how many rows it writes.
        outcome: "done", "refused" (NoServerError: certainly not done), or "unknown".
    """

    client: int
    number: int
    token: str
    rows: int
    outcome: str


@dataclass
class Window:
    """A fault, from its beginning until it was undone.

    Attributes:
        name: of the fault.
        on_master: whether writes may fail meanwhile.
        begun: by time.monotonic.
        ended: likewise; None while it lasts.
        grace: seconds for which it may still be felt.
        slows: seconds by which requests may take longer.
    """

    name: str
    on_master: bool
    begun: float
    ended: float | None = None
    grace: float = 0
    slows: float = 0

    def touches(self, since: float, until: float) -> bool:
        """Say whether it was felt at a time."""
        return self.begun <= until and (self.ended is None or since <= self.ended + self.grace)


@dataclass
class Ledger:
    """Filled by all clients."""

    limit: float
    windows: list[Window] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0
    began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count something that may be."""
        with self._lock:
            self.counts[what] += 1

    def wrong(self, what: str, detail: str) -> None:
        """Write down something that must not be."""
        with self._lock:
            self.counts[f"WRONG: {what}"] += 1
            running = [window.name for window in self.windows if window.touches(time.monotonic() - 5, time.monotonic())]
            self.faults.append(f"{time.monotonic() - self.began:6.1f} s [{', '.join(running)}] {what}: {detail}")

    def wrote(self, write: Write) -> None:
        """Write down a POST."""
        with self._lock:
            self.writes.append(write)
            self.counts[f"writes {write.outcome}"] += 1

    def took(self, what: str, since: float, until: float) -> None:
        """Look at the time that a request took."""
        allowed = self.limit + max((one.slows for one in self.windows if one.touches(since, until)), default=0)
        with self._lock:
            if not any(one.slows and one.touches(since, until) for one in self.windows):
                self.slowest = max(self.slowest, until - since)
        if until - since > allowed:
            self.wrong("too slow", f"{what} took {until - since:.2f} s, {allowed:.1f} are allowed")

    def master_may_be_gone(self, since: float, until: float) -> bool:
        """Say whether the master had a fault at a time."""
        return any(window.on_master and window.touches(since, until) for window in self.windows)

    def promoted_since(self, moment: float) -> bool:
        """Say whether a slave was promoted after a moment."""
        return any(window.name == PROMOTION and window.touches(moment, math.inf) for window in self.windows)

    def compare(self, found: Mapping[str, int]) -> Iterator[str]:
        """Compare the table with the responses, and record the faults.

        Args:
            found: for each token, how many rows have it.
        """
        known = {write.token for write in self.writes}
        for write in self.writes:
            rows = found.get(write.token, 0)
            if write.outcome == "done" and rows < write.rows:
                yield f"lost: {write} has {rows} rows"
            if rows > write.rows:
                yield f"written twice: {write} has {rows} rows"
            if write.outcome == "refused" and rows:
                yield f"refused, and written all the same: {write} has {rows} rows"
            if 0 < rows < write.rows:
                yield f"written by half: {write} has {rows} rows"
        for token in found.keys() - known:
            yield f"written by nobody: {token}"
