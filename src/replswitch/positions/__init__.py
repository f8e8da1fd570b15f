"""Positions are places in a master's replication stream. There is a module for each database product.

`Position.merge` returns the earliest position that includes two positions. `Position.includes` says whether a server at
one position has reached another one. `str`, `write` and `read` convert a position to text and back. The driver finds
out which position a commit has.
"""

from __future__ import annotations

from typing import Final

from replswitch.errors import PositionError
from replswitch.positions.mariadb import MariaDBPosition
from replswitch.positions.mysql import MySQLPosition
from replswitch.positions.position import Position
from replswitch.positions.postgresql import PostgreSQLPosition
from replswitch.positions.sqlite import SQLitePosition

__all__ = [
    "MariaDBPosition",
    "MySQLPosition",
    "Position",
    "PostgreSQLPosition",
    "SQLitePosition",
    "read",
    "register",
    "write",
]

_ENGINES: Final[dict[str, type[Position]]] = {
    kind.engine: kind for kind in (MariaDBPosition, MySQLPosition, PostgreSQLPosition, SQLitePosition)
}


def register(kind: type[Position]) -> None:
    """Register the positions of a database that replswitch does not know, so that markers can contain them.

    Args:
        kind: the class of the positions; its ``engine`` is the name of the database product in markers.
    """
    _ENGINES[kind.engine] = kind


def write(position: Position) -> str:
    """Return the text of a position of any engine, such as ``mariadb:0-1-42``. `read` is the inverse function."""
    return f"{position.engine}:{position}"


def read(text: str) -> Position:
    """Return the position in a text that `write` has returned.

    Raises:
        PositionError: the text is not a position.
    """
    engine, _, rest = text.partition(":")
    kind = _ENGINES.get(engine)
    if kind is None:
        known = ", ".join(f"{name}:" for name in _ENGINES)
        raise PositionError(f"{text[:60]!r} is not a position. It must begin with one of these: {known}.")
    return kind.parse(rest)
