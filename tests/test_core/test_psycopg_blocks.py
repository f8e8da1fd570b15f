"""Blocks of psycopg's own ``transaction()`` and ``pipeline()`` on the master: what they commit is recorded (M1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest

from replswitch.drivers import Written, load_driver
from replswitch.testing import PostgreSQLPair

INSERT = "INSERT INTO message VALUES (1)"


@pytest.fixture(params=[True, False], ids=["autocommit", "no autocommit"])
def connection(request: pytest.FixtureRequest, postgresql_pair: PostgreSQLPair) -> Iterator[Any]:
    driver: Any = load_driver("psycopg", binding=True)
    with closing(psycopg.connect(**postgresql_pair.master, autocommit=True)) as opened:
        tracked: Any = opened
        opened.execute("DROP TABLE IF EXISTS message")
        opened.execute("CREATE TABLE message (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        assert driver.take(tracked, {}, read_only=False)
        tracked.pop_write_status()
        tracked.autocommit = request.param
        yield tracked


def committed(connection: Any) -> tuple[bool, bool]:
    """Return whether the row is there, and whether a write was recorded."""
    status = connection.pop_write_status()
    connection.rollback()
    found = connection.execute("SELECT count(*) FROM message").fetchone()[0] > 0
    connection.rollback()
    return found, status is not Written.NO


def test_m1_a_transaction_block_that_has_written_is_recorded(connection: Any) -> None:
    with connection.transaction():
        connection.execute(INSERT)
        assert connection.pop_write_status() is Written.NO
    assert committed(connection) == (True, True)


def test_m1_nested_transaction_blocks_are_recorded_when_the_outer_one_commits(connection: Any) -> None:
    with connection.transaction():
        with connection.transaction():
            connection.execute(INSERT)
        assert connection.pop_write_status() is Written.NO
    assert committed(connection) == (True, True)


def test_m1_a_transaction_block_in_an_open_transaction_is_recorded_at_the_commit(connection: Any) -> None:
    connection.execute("BEGIN")
    with connection.transaction():
        connection.execute(INSERT)
    assert connection.pop_write_status() is Written.NO
    connection.commit()
    assert committed(connection) == (True, True)


def test_m1_a_transaction_block_in_a_pipeline_is_recorded(connection: Any) -> None:
    with connection.pipeline(), connection.transaction():
        connection.execute(INSERT)
    assert committed(connection) == (True, True)


def test_m1_a_transaction_block_that_has_only_read_makes_no_marker(connection: Any) -> None:
    with connection.transaction():
        connection.execute("SELECT 1")
    with connection.transaction():
        pass
    assert committed(connection) == (False, False)


def test_m1_a_transaction_block_that_was_rolled_back_makes_no_marker(connection: Any) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT)
    with connection.transaction():
        connection.execute(INSERT)
        raise psycopg.Rollback
    assert committed(connection) == (False, False)


def test_m1_a_transaction_block_that_has_failed_makes_no_marker(connection: Any) -> None:
    with connection.transaction(), suppress(psycopg.errors.DivisionByZero):
        connection.execute(INSERT)
        connection.execute("SELECT 1/0")
    with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
        connection.execute("INSERT INTO message VALUES (1), (1)")  # refused at the commit
    assert committed(connection) == (False, False)


def test_commit_in_a_transaction_block_is_refused_as_by_psycopg(connection: Any) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT)
        with pytest.raises(psycopg.ProgrammingError, match="forbidden"):
            connection.commit()
    assert committed(connection) == (False, False)


def one_insert(connection: Any, pipeline: Any) -> None:
    assert connection.execute(f"{INSERT} RETURNING id").fetchall() == [(1,)]


def executemany(connection: Any, pipeline: Any) -> None:
    connection.cursor().executemany("INSERT INTO message VALUES (%s)", [(1,), (2,)])


def insert_and_sync(connection: Any, pipeline: Any) -> None:
    connection.execute(INSERT)
    pipeline.sync()


def insert_and_commit(connection: Any, pipeline: Any) -> None:
    connection.execute(INSERT)
    connection.commit()


def commit_and_error(connection: Any, pipeline: Any) -> None:
    insert_and_commit(connection, pipeline)
    pipeline.sync()
    connection.execute("SELECT 1/0")


@pytest.mark.parametrize("work", [one_insert, executemany, insert_and_sync, insert_and_commit, commit_and_error])
def test_m1_a_pipeline_that_has_written_is_recorded(connection: Any, work: Callable[[Any, Any], None]) -> None:
    with suppress(psycopg.errors.DivisionByZero), connection.pipeline() as pipeline:
        work(connection, pipeline)
    if not connection.autocommit:
        connection.commit()
    assert committed(connection) == (True, True)


def test_m1_a_pipeline_in_a_transaction_that_was_rolled_back_makes_no_marker(connection: Any) -> None:
    connection.execute("BEGIN")
    with connection.pipeline():
        connection.execute(INSERT)
    connection.rollback()
    assert committed(connection) == (False, False)


def test_m1_a_pipeline_without_statements_makes_no_marker(connection: Any) -> None:
    with connection.pipeline():
        pass
    connection.execute("SELECT 1")
    assert committed(connection) == (False, False)
