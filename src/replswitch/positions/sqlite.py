"""Positions of SQLite, for `replswitch.testing.SQLitePair`: times, because SQLite has no replication stream.

The pair keeps a note (a small file) next to the file of each slave. The note has the time at which the latest copy of
the master was begun. The slave has every commit that had ended before that time. A master that is copied has an empty
note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self

from replswitch.errors import PositionError
from replswitch.positions.position import Position

if TYPE_CHECKING:
    from collections.abc import Hashable

_MOMENT: Final = re.compile(r"\d{1,19}", re.ASCII)


def note_beside(file: str | Path) -> Path:
    """Return the path of the file with a database's position. The name is like those of SQLite's own extra files."""
    return Path(f"{file}-position")


@dataclass(frozen=True, slots=True)
class SQLitePosition(Position):
    """A time. A database file at this position has every commit that had ended before this time.

    Attributes:
        moment: nanoseconds since the epoch.
    """

    engine: ClassVar[str] = "sqlite"

    moment: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position from a number of nanoseconds as text."""
        if not _MOMENT.fullmatch(text):
            raise PositionError(f"{text[:60]!r} is not a whole number of nanoseconds since the epoch.")
        return cls(int(text))

    def merge(self, other: Self) -> Self:
        """Return the later position."""
        return max(self, other, key=lambda position: position.moment)

    def includes(self, other: Position) -> bool:
        """Return whether ``other`` is the same moment or an earlier one."""
        return isinstance(other, SQLitePosition) and self.moment >= other.moment

    def is_written_by(self, identity: Hashable) -> bool:
        """Return True, because no other server could have written to the file."""
        return True

    def __str__(self) -> str:
        return str(self.moment)
