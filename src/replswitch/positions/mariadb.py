"""Positions of MariaDB, which have the latest global transaction id (GTID) of each replication domain.

https://mariadb.com/kb/en/gtid/: a GTID is ``domain-server-sequence``, and a position is a list with one GTID for
each domain. The sequence of a domain grows, whichever server writes, so a position stays valid when another server is
promoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from replswitch.errors import PositionError
from replswitch.positions.position import Position

if TYPE_CHECKING:
    from collections.abc import Hashable

_GTID: Final = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})", re.ASCII)

# The types of the three numbers: two of 32 bits, one of 64.
_LIMITS: Final = (2**32, 2**32, 2**64)


@dataclass(frozen=True, slots=True)
class MariaDBPosition(Position):
    """One GTID for each domain.

    Attributes:
        gtids: ``(domain, sequence, server)``, in the order of the domains.
    """

    engine: ClassVar[str] = "mariadb"

    gtids: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a list such as ``0-1-42,7-2-9``; the empty list precedes the first write."""
        gtids = []
        for gtid in text.split(",") if text else ():
            match = _GTID.fullmatch(gtid.strip())
            numbers = () if match is None else tuple(map(int, match.groups()))
            if not numbers or any(number >= limit for number, limit in zip(numbers, _LIMITS, strict=True)):
                raise PositionError(f"{gtid.strip()[:60]!r} is not a GTID of MariaDB, such as 0-1-42.")
            domain, server, sequence = numbers
            gtids.append((domain, sequence, server))
        return cls(_latest(gtids))

    def merge(self, other: Self) -> Self:
        """Return the later GTID of each domain."""
        return type(self)(_latest([*self.gtids, *other.gtids]))

    def earlier(self, other: Self) -> Self:
        """Return the earlier GTID of each domain that is in both this position and the ``other``."""
        there = {gtid[0]: gtid for gtid in other.gtids}
        return type(self)(tuple(min(gtid, there[gtid[0]]) for gtid in self.gtids if gtid[0] in there))

    def includes(self, other: Position) -> bool:
        """Return whether this position has at least the sequence number of ``other`` in each domain of ``other``."""
        if not isinstance(other, MariaDBPosition):
            return False
        here = {domain: sequence for domain, sequence, _ in self.gtids}
        return all(here.get(domain, -1) >= sequence for domain, sequence, _ in other.gtids)

    def is_written_by(self, identity: Hashable) -> bool:
        """Return whether the ``server_id`` of each GTID is that of the server with this identity."""
        return isinstance(identity, tuple) and all(str(server) == identity[0] for _, _, server in self.gtids)

    def __str__(self) -> str:
        return ",".join(f"{domain}-{server}-{sequence}" for domain, sequence, server in self.gtids)


def _latest(gtids: list[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Return the latest GTID of each domain, in the order of the domains."""
    return tuple({gtid[0]: gtid for gtid in sorted(gtids)}.values())
