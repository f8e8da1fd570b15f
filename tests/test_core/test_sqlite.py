"""connect() on one SQLite file: reads must not block writes (S10)."""

from __future__ import annotations

import gc
import sqlite3
import threading
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


def test_s6_a_loop_over_a_cursor_that_ends_early_leaves_the_other_rows_to_fetch(db: Any) -> None:
    cursor = db.cursor()
    cursor.execute("SELECT id FROM note")
    assert next(iter(cursor)) == (1,)
    assert cursor.fetchone() == (2,)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA query_only=0",
        "pragma query_only(off)",
        "PRAGMA main.[query_only] = no",
        "/* x */ PRAGMA/**/query_only /**/ = 0",
    ],
)
def test_s7_a_pragma_that_makes_its_link_writable_runs_on_the_master(db: Any, sql: str) -> None:
    db.debug = True
    with db.use_slave():
        db.cursor().execute(sql)
        assert db.queries[-1]["db"] == "master"
    with db.use_slave():
        db.cursor().executescript(f"SELECT 1; {sql}")
        assert db.queries[-1]["db"] == "master"
        insert(db)
        assert db.queries[-1]["db"] == "master"


@pytest.mark.parametrize(
    "sql", ["PRAGMA foreign_keys=ON", "PRAGMA case_sensitive_like(1)", "ATTACH ':memory:' AS other"]
)
def test_s8_a_write_after_a_pragma_in_slave_state_is_refused(db: Any, sql: str) -> None:
    with db.use_slave():
        db.cursor().execute(sql)
        with pytest.raises(replswitch.SlaveWriteError, match="changed the session"):
            insert(db)


@pytest.mark.parametrize("sql", ["PRAGMA table_info(note)", "PRAGMA foreign_key_list(note)", "PRAGMA query_only"])
def test_s8_a_write_after_a_pragma_that_only_reads_moves_to_the_master(db: Any, sql: str) -> None:
    with db.use_slave():
        db.cursor().execute(sql)
        insert(db)


def test_s11_a_request_does_not_see_a_database_file_that_another_request_has_attached(db: Any) -> None:
    for _ in range(2):
        with replswitch.resume(""), db.use_slave():
            db.cursor().execute("ATTACH ':memory:' AS other")


@pytest.mark.filterwarnings("error")
def test_a_connection_that_was_not_closed_ends_without_a_warning(tmp_path: Path) -> None:
    made = replswitch.connect({"database": tmp_path / "shop.db"}, [], driver="sqlite3")
    thread = threading.Thread(target=read_nothing, args=[made])
    thread.start()
    thread.join()
    del made, thread
    gc.collect()


def read_nothing(db: replswitch.Connection) -> None:
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
