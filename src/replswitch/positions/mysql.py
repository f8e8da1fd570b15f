"""Positions of MySQL, which are sets of global transaction ids (GTIDs) with the numbers of each server's transactions.

https://dev.mysql.com/doc/refman/9.1/en/replication-gtids-concepts.html: a set is written
``uuid:1-57:60:tag:1-3,uuid:…``. The ranges after a tag (MySQL 8.3 and newer) belong to this tag. Each source
server has its own ranges, so a position stays valid when another server is promoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self
from uuid import UUID

from replswitch.errors import PositionError
from replswitch.positions.position import Position

if TYPE_CHECKING:
    from collections.abc import Hashable

# The text between two commas: a UUID, and then ranges, each of which may follow tags.
_PART: Final = re.compile(
    r"\s*[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\s*"
    r"(?::\s*(?:[a-z_][a-z0-9_]{0,31}\s*:\s*)*\d{1,19}(?:-\d{1,19})?\s*)+",
    re.ASCII | re.IGNORECASE,
)

_HIGHEST: Final = 2**63 - 2
"""The highest transaction number."""

Source = tuple[str, str]
"""``(uuid, tag)``; the tag is empty for transactions without one."""

Ranges = tuple[tuple[int, int], ...]
"""``(first, last)``, both included. Ranges are in order, and there is a gap between any two."""


@dataclass(frozen=True, slots=True)
class MySQLPosition(Position):
    """A set of transactions.

    Attributes:
        sources: the ranges of each source, in the order of the sources.
    """

    engine: ClassVar[str] = "mysql"

    sources: tuple[tuple[Source, Ranges], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a set; the empty set is the position before the first write."""
        found: dict[Source, list[tuple[int, int]]] = {}
        for part in text.split(",") if text.strip() else ():
            if not _PART.fullmatch(part):
                raise _malformed(part)
            uuid, *words = map(str.strip, part.lower().split(":"))
            source = (str(UUID(uuid)), "")
            for word in words:
                if not word[0].isdigit():
                    source = (source[0], word)
                    continue
                first, _, last = word.partition("-")
                if not 1 <= int(first) <= int(last or first) <= _HIGHEST:
                    raise _malformed(part)
                found.setdefault(source, []).append((int(first), int(last or first)))
        return cls._of(found)

    def merge(self, other: Self) -> Self:
        """Return the union of both sets."""
        both: dict[Source, list[tuple[int, int]]] = {}
        for source, ranges in self.sources + other.sources:
            both.setdefault(source, []).extend(ranges)
        return self._of(both)

    def includes(self, other: Position) -> bool:
        """Return whether this set contains all transactions of ``other``."""
        return isinstance(other, MySQLPosition) and self.merge(other) == self

    def is_written_by(self, identity: Hashable) -> bool:
        """Return whether the UUID of each transaction is that of the server with this identity."""
        return isinstance(identity, str) and all(source[0] == identity.lower() for source, _ in self.sources)

    def written_by(self, *uuids: str) -> Self:
        """Return the transactions with one of these UUIDs, which are a server's own UUID and that of its group."""
        known = {uuid.lower() for uuid in uuids}
        return type(self)(tuple((source, ranges) for source, ranges in self.sources if source[0] in known))

    def __str__(self) -> str:
        text, latest = "", ""
        for (uuid, tag), ranges in self.sources:
            text += "" if uuid == latest else f",{uuid}"
            text += f":{tag}" if tag else ""
            text += "".join(f":{first}" if first == last else f":{first}-{last}" for first, last in ranges)
            latest = uuid
        return text[1:]

    @classmethod
    def _of(cls, found: dict[Source, list[tuple[int, int]]]) -> Self:
        return cls(tuple((source, _joined(found[source])) for source in sorted(found)))


def _joined(ranges: list[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _malformed(part: str) -> PositionError:
    return PositionError(
        f"{part.strip()[:100]!r} is not a GTID set of MySQL, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:tag:7."
    )
