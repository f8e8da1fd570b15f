"""A database engine that replswitch does not know, on its public names alone.

Its servers are files of SQLite, and its position is a counter in the file's header (``PRAGMA user_version``), which is
raised after each commit that wrote.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from replswitch import PositionError
from replswitch.drivers import Driver, Fault, WriteTracker, Written
from replswitch.positions import Position, register

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


@dataclass(frozen=True, slots=True)
class ToyPosition(Position):
    """How many commits have written."""

    engine: ClassVar[str] = "toy"

    commits: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a number."""
        if not text.isdecimal():
            raise PositionError(f"{text[:60]!r} is not a number of commits.")
        return cls(int(text))

    def merge(self, other: Self) -> Self:
        """Return the larger one."""
        return self if self.includes(other) else other

    def includes(self, other: Position) -> bool:
        """Compare the numbers."""
        return isinstance(other, ToyPosition) and self.commits >= other.commits

    def is_written_by(self, identity: Hashable) -> bool:
        """There is one master."""
        return True

    def __str__(self) -> str:
        return str(self.commits)


register(ToyPosition)


class ToyConnection(sqlite3.Connection, WriteTracker):
    """A connection that knows how many changes it has counted."""

    seen = 0

    def __del__(self) -> None:
        """Close without a warning if a test has left it to the garbage collector. sqlite3 warns from Python 3.13 on."""
        self.close()

    def rollback(self) -> None:
        """Roll back; the changes that it undoes are not counted."""
        if self.in_transaction:
            super().rollback()
            self.seen = self.total_changes

    def pop_write_status(self) -> Position | Written:
        """Raise the counter where something was committed."""
        if self.in_transaction or self.seen == self.total_changes:
            return Written.NO
        self.seen = self.total_changes
        self.execute("BEGIN IMMEDIATE").close()
        position = ToyPosition(commits_of(self) + 1)
        self.execute(f"PRAGMA user_version = {position}").close()
        self.commit()
        return position


def commits_of(raw: sqlite3.Connection) -> int:
    """Return the counter."""
    return int(raw.execute("PRAGMA user_version").fetchone()[0])


class ToyDriver(Driver):
    """See `replswitch.drivers.Driver`."""

    module = sqlite3

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the file."""
        return Path(settings["database"]).name

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return a name that all servers share."""
        return "main"

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> ToyConnection:
        """Open a file that is there."""
        address = f"{Path(settings['database']).absolute().as_uri()}?mode=rw"
        raw: ToyConnection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, factory=ToyConnection
        )
        raw.execute(f"PRAGMA query_only = {read_only:d}").close()
        raw.seen = raw.total_changes
        return raw

    def writes_of(self, raw: ToyConnection) -> ToyConnection:
        """Return the connection itself."""
        return raw

    def reusable(self, raw: ToyConnection) -> bool:
        """Roll back what is open."""
        raw.rollback()
        return True

    def in_transaction(self, raw: ToyConnection) -> bool:
        """Return sqlite3's own answer."""
        return raw.in_transaction

    def fetch_position(self, raw: ToyConnection) -> tuple[Hashable, Position | None]:
        """Return the file and its counter."""
        return raw.execute("PRAGMA database_list").fetchone()[2], ToyPosition(commits_of(raw))

    def classify(self, error: BaseException, raw: ToyConnection | None = None) -> Fault:
        """Go by SQLite's primary code."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            return Fault.READ_ONLY
        if code == sqlite3.SQLITE_CANTOPEN:
            return Fault.UNSENT
        return Fault.OTHER if raw is None or raw.in_transaction else Fault.ROLLED_BACK


TOY = ToyDriver()
