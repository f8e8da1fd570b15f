"""Positions: places in a master's stream of replication. One module an engine.

A position answers three questions: is it the later of two (`Position.merge`), has a server that is here reached that
one (`Position.includes`), and how is it written down (`str`, `read`). Which position a commit has, its driver knows.
"""

from __future__ import annotations

from typing import Final

from replswitch.errors import PositionError
from replswitch.positions.mariadb import MariaDBPosition
from replswitch.positions.mysql import MySQLPosition
from replswitch.positions.position import Position
from replswitch.positions.sqlite import SQLitePosition

__all__ = ["MariaDBPosition", "MySQLPosition", "Position", "SQLitePosition", "read", "register", "write"]

_ENGINES: Final[dict[str, type[Position]]] = {
    kind.engine: kind for kind in (MariaDBPosition, MySQLPosition, SQLitePosition)
}


def register(kind: type[Position]) -> None:
    """Make the positions of an engine known that replswitch does not know, so that markers can carry them.

    Args:
        kind: their class; its ``engine`` is the word for it in markers.
    """
    _ENGINES[kind.engine] = kind


def write(position: Position) -> str:
    """Return the text of a position of any engine: ``mariadb:0-1-42``. `read` is its inverse."""
    return f"{position.engine}:{position}"


def read(text: str) -> Position:
    """Return the position that `write` wrote down.

    Raises:
        PositionError: the text is no position.
    """
    engine, _, rest = text.partition(":")
    kind = _ENGINES.get(engine)
    if kind is None:
        raise PositionError(f"{text[:60]!r} names no engine. Known are {', '.join(_ENGINES)}.")
    return kind.parse(rest)
