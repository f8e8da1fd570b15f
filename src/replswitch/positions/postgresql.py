"""Positions of PostgreSQL, which have a place in the write-ahead log of each timeline.

https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES: a promoted server begins a new
timeline at the place up to which it had the old one. What the old master wrote after that place is lost, and the same
places of the log stand for other writes on the new timeline. So places of different timelines are not compared, with
these exceptions:

- This process has seen a server at place X of the old timeline, and that server has then changed to the new one. Then
  every server of the new timeline that has applied the log up to X is known to have X. It may have more of the old
  timeline, but only the history files show where the timelines part, and an application may not read them. So
  visitors who wrote after X and before the promotion read from the master until they write again, or until their marker
  ends. A write that was lost is never treated as reached.
- A master has its own writes, and those of every earlier timeline that were not lost (`is_written_by`).
- A server that has reached a write of such a master has the same earlier writes. So if a visitor has made such a write,
  the places of earlier timelines are dropped from the visitor's position (`merge_earlier`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from replswitch.errors import PositionError
from replswitch.positions.position import Position

if TYPE_CHECKING:
    from collections.abc import Hashable

_PLACE: Final = re.compile(r"([1-9]\d{0,9}):([0-9a-f]{1,8})/([0-9a-f]{1,8})", re.ASCII | re.IGNORECASE)

_TIMELINES: Final = 2**32

# A page of the log begins with a header of 24 bytes, the first page of a segment with one of 40 (xlog_internal.h).
_HEADER: Final = 24
_LONG_HEADER: Final = 40


@dataclass(frozen=True, slots=True)
class PostgreSQLPosition(Position):
    """A place on each timeline.

    Attributes:
        places: ``(timeline, bytes)``, in the order of the timelines.
    """

    engine: ClassVar[str] = "postgresql"

    places: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a list such as ``1:0/16B3748,2:0/2000028``."""
        places = []
        for part in text.split(","):
            match = _PLACE.fullmatch(part)
            if match is None or int(match[1]) >= _TIMELINES:
                raise PositionError(f"{part[:60]!r} is not a timeline and an LSN of PostgreSQL, such as 1:0/16B3748.")
            places.append((int(match[1]), int(match[2], 16) << 32 | int(match[3], 16)))
        return cls(_latest(places))

    @classmethod
    def after_insert(cls, timeline: int, lsn: str | bytes, *, page: int, segment: int) -> Self:
        """Return the position up to which a master has written, from its ``pg_current_wal_insert_lsn()``.

        After a record that fills its page, that function returns the place after the header of the next page. No slave
        reaches that place before another record follows, so this method returns the end of the record.

        Args:
            timeline: the timeline of the master.
            lsn: the result of the function.
            page: the size of a page in bytes (``wal_block_size``).
            segment: the size of a file in bytes (``wal_segment_size``).

        Raises:
            PositionError: ``lsn`` is not a place.
        """
        high, _, low = lsn.partition("/") if isinstance(lsn, str) else lsn.partition(b"/")
        try:
            place = int(high, 16) << 32 | int(low, 16)
        except ValueError:
            raise PositionError(
                f"{lsn[:60]!r} is not a place in PostgreSQL's log (an LSN), such as 0/16B3748."
            ) from None
        if place % segment == _LONG_HEADER:
            place -= _LONG_HEADER
        elif place % page == _HEADER:
            place -= _HEADER
        return cls(((timeline, place),))

    def merge(self, other: Self) -> Self:
        """Return the later place of each timeline."""
        return type(self)(_latest([*self.places, *other.places]))

    def merge_earlier(self, earlier: Self) -> Self:
        """Return both positions merged. Of ``earlier``, leave out places on timelines before this position's latest.

        A server that has the write of this position has everything that the write's timeline contains of earlier
        timelines. What this timeline does not contain is lost, on the master as well.
        """
        timeline, _ = latest = self.places[-1]
        if earlier.places[-1] <= latest:
            return self
        return type(self)(_latest([*(each for each in earlier.places if each[0] >= timeline), *self.places]))

    def includes(self, other: Position) -> bool:
        """Return whether this position is at or after ``other`` on each timeline of ``other``."""
        if not isinstance(other, PostgreSQLPosition):
            return False
        here = dict(self.places)
        return all(here.get(timeline, -1) >= place for timeline, place in other.places)

    def is_written_by(self, identity: Hashable) -> bool:
        """Return whether a master is on the latest timeline of this position, or on a later one.

        The timeline is the first part of the identity. A master on a later timeline has every write of an earlier one
        that was not lost.
        """
        return isinstance(identity, tuple) and self.places[-1][0] <= identity[0]

    def __str__(self) -> str:
        return ",".join(f"{timeline}:{place >> 32:X}/{place & 0xFFFFFFFF:X}" for timeline, place in self.places)


def _latest(places: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the latest place of each timeline, in the order of the timelines."""
    return tuple(dict(sorted(places)).items())
