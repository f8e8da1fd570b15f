"""What the connections of all drivers of PostgreSQL record about writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replswitch.drivers.driver import WriteTracker, Written, later
from replswitch.drivers.postgresql import position_of
from replswitch.positions import PostgreSQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replswitch.positions import Position


class PostgreSQLTracker(WriteTracker):
    """The write tracker of a connection to PostgreSQL.

    Attributes:
        is_reader: the database refuses writes (S7).
        timed_out: no answer came in time, and the connection was closed.
        tells: the server has positions.
        written: the commits since the last `pop_write_status`.
        timeline: the timeline of the master. It does not change.
        sizes: the sizes of a page and of a segment of the log, in bytes.
    """

    is_reader = False
    timed_out = False
    tells = False
    written: Position | Written = Written.NO
    timeline = 0
    sizes = (0, 0)

    def recognise(self, row: Sequence[Any]) -> None:
        """Keep the identity of the master, from its answer to `replswitch.drivers.postgresql.POSITION`."""
        self.identity, position = position_of(row)
        self.timeline, self.sizes = row[4], (row[5], row[6])
        self.tells = position is not None and not row[2]
        if row[2]:
            fall_back_to_clock("The master reports no positions, because it is a standby")

    def place(self, lsn: str) -> Position:
        """Return the position in an answer to `replswitch.drivers.postgresql.WRITTEN`."""
        page, segment = self.sizes
        return PostgreSQLPosition.after_insert(self.timeline, lsn, page=page, segment=segment)

    def note(self, status: Position | Written) -> None:
        """Record a commit."""
        if status is Written.NO:
            return
        if not self.tells:
            status = Written.YES
        self.written, self.news = later(self.written, status), True
        if not isinstance(status, Written):
            self.last_known_position = status
        if self.on_write is not None:
            self.on_write(self, False)

    # WriteTracker

    def pop_write_status(self) -> Position | Written:
        """Return what was committed."""
        self.news = False
        written, self.written = self.written, Written.NO
        return written
