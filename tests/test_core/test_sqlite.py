"""connect() on one SQLite file: reads must not block writes (S10)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import replswitch

ROWS = 300


@pytest.fixture(params=["no slaves", "same file"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[replswitch.Connection]:
    """A file with rows, without slaves or as its own slave. A write waits a tenth of a second for readers."""
    file = {"database": tmp_path / "shop.db", "timeout": 0.1}
    with closing(sqlite3.connect(tmp_path / "shop.db")) as plain:
        plain.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
        plain.executemany("INSERT INTO note (body) VALUES (?)", [("x",)] * ROWS)
        plain.commit()
    with replswitch.connect(file, [file] if request.param == "same file" else [], driver="sqlite3") as made:
        yield made


def insert(db: Any) -> None:
    db.cursor().execute("INSERT INTO note (body) VALUES ('y')")


def insert_in_block(db: Any) -> None:
    db.begin()
    insert(db)
    db.commit()


@pytest.mark.parametrize("write", [insert, insert_in_block])
@pytest.mark.parametrize("on_master", [False, True])
def test_s10_a_row_is_written_while_rows_of_a_slave_are_still_read(
    db: Any, write: Callable[[Any], None], on_master: bool
) -> None:
    with db.use_slave():
        cursor = db.cursor()
        cursor.execute("SELECT id FROM note")
        first = cursor.fetchone()
        if on_master:
            with db.use_master():
                write(db)
        else:
            write(db)
        assert first == (1,)
        assert cursor.fetchmany(2) == [(2,), (3,)]
        assert next(iter(cursor)) == (4,)
        assert len(cursor.fetchall()) == ROWS - 4
        assert cursor.fetchone() is None
        assert cursor.description[0][0] == "id"
    assert db.cursor().execute("SELECT COUNT(*) FROM note").fetchone() == (ROWS + 1,)


def test_s10_a_block_commits_while_its_rows_are_still_read(db: Any) -> None:
    db.begin()
    with db.use_slave():
        cursor = db.cursor()
        cursor.execute("SELECT id FROM note")
    insert(db)
    db.commit()
    assert len(cursor.fetchall()) == ROWS


def test_s10_a_closed_cursor_of_a_slave_returns_no_rows(db: Any) -> None:
    with db.use_slave():
        cursor = db.cursor()
        cursor.execute("SELECT id FROM note")
        raw = cursor._raw
        cursor.close()
        for fetch in (raw.fetchone, raw.fetchmany, raw.fetchall, lambda: next(raw)):
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                fetch()


def test_s6_a_loop_that_ends_early_leaves_the_other_rows(db: Any) -> None:
    cursor = db.cursor()
    cursor.execute("SELECT id FROM note")
    assert next(iter(cursor)) == (1,)
    assert cursor.fetchone() == (2,)
