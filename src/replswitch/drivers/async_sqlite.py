"""The driver aiosqlite, for tests and development, because SQLite does not replicate. SQLAlchemy opens connections."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from replswitch.drivers.unknown import UnknownDriver
from replswitch.drivers.written import WriteTracker, Written
from replswitch.positions.sqlite import SQLitePosition, note_beside

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers import Raw
    from replswitch.positions import Position


class _Tracker(WriteTracker):
    """The write tracker of one connection. It compares the number of changed rows with the previous number.

    A rollback does not lower this number. So the method ``rollback`` of the connection is replaced, to leave out the
    rows that were rolled back.

    Args:
        connection: the connection of aiosqlite.
        file: the path of the database.
    """

    reports_all = True

    def __init__(self, connection: Any, file: str) -> None:
        self._connection = connection
        self._roll_back = connection.rollback
        connection.rollback = self._roll_back_and_note
        self._changes_seen: int = connection.total_changes
        self._reports_positions = note_beside(file).exists()

    async def _roll_back_and_note(self) -> None:
        connection = self._connection
        was_open = connection.in_transaction
        await self._roll_back()
        if was_open and connection.isolation_level is not None:  # else there may be changes from before the transaction
            self._changes_seen = connection.total_changes

    def pop_write_status(self) -> Position | Written:
        """Return `Written.NO` in a transaction, and if no row was changed; else a position or `Written.YES`."""
        if self._connection.in_transaction:
            return Written.NO
        seen, self._changes_seen = self._changes_seen, self._connection.total_changes
        if seen == self._changes_seen:
            return Written.NO
        return SQLitePosition(time.time_ns()) if self._reports_positions else Written.YES

    def has_written(self) -> bool:
        """Return whether rows were changed. A savepoint that is released outside a transaction has committed them."""
        try:
            return bool(self._connection.total_changes != self._changes_seen)
        except ValueError:  # the connection is closed
            return False

    def refresh_baseline(self) -> None:
        """Ignore changes that were rolled back, because a rollback does not lower the number of changed rows."""
        with suppress(ValueError):  # the connection is closed
            self.pop_write_status()


class AsyncSQLiteDriver(UnknownDriver):
    """The `replswitch.drivers.Driver` for aiosqlite. It does not notice DDL, because DDL changes no rows."""

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the tracker, which is an attribute of the driver's own connection."""
        kept = vars(raw.driver_connection)
        if "replswitch" not in kept:
            kept["replswitch"] = _Tracker(raw.driver_connection, _file(raw))
        tracker: WriteTracker = kept["replswitch"]
        return tracker

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Return the path of the database file as the identity, and the position in the small file beside it."""
        file = _file(raw)
        note = note_beside(file)
        text = note.read_text() if note.exists() else ""
        return file, SQLitePosition.parse(text) if text else None

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Return at once whether the position is reached, because waiting here would block the event loop."""
        reached = self.fetch_position(raw)[1]
        return reached is not None and reached.includes(position)


def _file(raw: Raw) -> str:
    """Return the path of the file that is open."""
    with closing(raw.cursor()) as cursor:
        cursor.execute("PRAGMA database_list")
        return str(cursor.fetchall()[0][2])
