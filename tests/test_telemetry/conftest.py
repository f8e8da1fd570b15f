"""A replicated database of SQLite files, and what was counted since the test began."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.testing import SQLitePair

Make = Callable[..., Connection]

_numbers = count(1)


@pytest.fixture
def pair(sqlite_pair: SQLitePair) -> SQLitePair:
    """The pair, with an empty table of messages."""
    with closing(sqlite_pair.connect()) as plain:
        plain.execute("DROP TABLE IF EXISTS message")
        plain.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body VARCHAR(100))")
    sqlite_pair.wait_caught_up()
    return sqlite_pair


@pytest.fixture
def make(pair: SQLitePair) -> Iterator[Make]:
    """Make connections to the pair, each with a name of its own; they are closed after the test."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        options = {"name": f"shop{next(_numbers)}", **options}
        made.append(replswitch.connect(pair.master, pair.slaves, driver="sqlite3", **options))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def db(make: Make) -> Connection:
    """A connection to the pair."""
    return make()


def ask(db: Connection, sql: str = "SELECT COUNT(*) FROM message") -> Any:
    """Run a statement, and return all its rows."""
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def statements(name: str) -> dict[tuple[str, ...], int]:
    """The statements counted for a database, by side, server and reason."""
    counted = replswitch.stats()["statements"]
    return {labels[1:]: number for labels, number in counted.items() if labels[0] == name}


def events(name: str, event: str) -> dict[str, int]:
    """How often an event was counted for a database, by server."""
    counted = replswitch.stats()[event]
    return {server: number for (database, server), number in counted.items() if database == name}
