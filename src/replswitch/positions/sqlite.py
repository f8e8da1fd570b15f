"""The clock of one machine, for `replswitch.testing.SQLitePair`: SQLite has no stream of replication.

The pair keeps a note beside each slave's file: the moment at which its latest copy of the master was begun. Such a
slave has every commit that had ended before that moment. Beside a master that is copied there is a note too, an empty
one.
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
    """Return where the note of a database is kept: named like the files that SQLite itself keeps there."""
    return Path(f"{file}-position")


@dataclass(frozen=True, slots=True)
class SQLitePosition(Position):
    """A moment.

    Attributes:
        moment: nanoseconds since the epoch.
    """

    engine: ClassVar[str] = "sqlite"

    moment: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a number of nanoseconds."""
        if not _MOMENT.fullmatch(text):
            raise PositionError(f"{text[:60]!r} is no moment: one is a whole number of nanoseconds since the epoch.")
        return cls(int(text))

    def merge(self, other: Self) -> Self:
        """Return the later one."""
        return max(self, other, key=lambda position: position.moment)

    def includes(self, other: Position) -> bool:
        """Say whether ``other`` is no later than this moment."""
        return isinstance(other, SQLitePosition) and self.moment >= other.moment

    def is_written_by(self, identity: Hashable) -> bool:
        """A file is no other server's: always."""
        return True

    def __str__(self) -> str:
        return str(self.moment)
