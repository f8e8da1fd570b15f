"""Positions of SQLite, for `replswitch.testing.SQLitePair`: times, because SQLite has no replication stream.

The pair keeps a note (a small file) next to the file of each slave: the time at which the latest copy of the master was
begun. The slave has every commit that had ended before that time. A master that is copied has a note, too, which is
empty.
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
    """Return the path of the note of a database. SQLite names its own files next to a database in the same way."""
    return Path(f"{file}-position")


@dataclass(frozen=True, slots=True)
class SQLitePosition(Position):
    """A time.

    Attributes:
        moment: nanoseconds since the epoch.
    """

    engine: ClassVar[str] = "sqlite"

    moment: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a number of nanoseconds."""
        if not _MOMENT.fullmatch(text):
            raise PositionError(f"{text[:60]!r} is not a whole number of nanoseconds since the epoch.")
        return cls(int(text))

    def merge(self, other: Self) -> Self:
        """Return the later one."""
        return max(self, other, key=lambda position: position.moment)

    def includes(self, other: Position) -> bool:
        """Say whether ``other`` is no later than this moment."""
        return isinstance(other, SQLitePosition) and self.moment >= other.moment

    def is_written_by(self, identity: Hashable) -> bool:
        """Return True: a file has no other server that could have written to it."""
        return True

    def __str__(self) -> str:
        return str(self.moment)
