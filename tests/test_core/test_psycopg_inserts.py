"""An INSERT outside transactions on the master with psycopg: whether it makes a marker (M1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from replswitch.drivers import Written, load_driver
from replswitch.positions import Position
from replswitch.testing import PostgreSQLPair

SETUP = """
DROP TABLE IF EXISTS message, dropping;
DROP VIEW IF EXISTS nothing;
CREATE TABLE message (id INT PRIMARY KEY, body TEXT DEFAULT '');
INSERT INTO message VALUES (1);
CREATE TABLE dropping (id INT);
CREATE OR REPLACE FUNCTION drop_row() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER drops BEFORE INSERT ON dropping FOR EACH ROW EXECUTE FUNCTION drop_row();
CREATE VIEW nothing AS SELECT 1 AS id;
CREATE RULE none AS ON INSERT TO nothing DO INSTEAD NOTHING
"""


@pytest.fixture
def pair(postgresql_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute(SETUP)
    yield postgresql_pair
    postgresql_pair.reset()


@pytest.fixture(params=["unprepared", "prepared"])
def connection(request: pytest.FixtureRequest, pair: PostgreSQLPair) -> Iterator[Any]:
    driver: Any = load_driver("psycopg", binding=True)
    threshold = 0 if request.param == "prepared" else None
    with closing(psycopg.connect(**pair.master, autocommit=True, prepare_threshold=threshold)) as opened:
        tracked: Any = opened
        assert driver.take(tracked, {}, read_only=False)
        tracked.pop_write_status()
        yield tracked


def status_after(connection: Any, sql: str, *values: object) -> Any:
    for number in range(8):  # the queries of replswitch are prepared after some statements
        connection.execute("DELETE FROM message WHERE id > 1")
        connection.pop_write_status()
        connection.execute(sql, values or None)
        status = connection.pop_write_status()
        if number == 0:
            first = status
        assert isinstance(status, Position) == isinstance(first, Position)
    return status


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO message VALUES (2)",
        "insert into message (id) values (2) RETURNING id",
        "INSERT INTO message DEFAULT VALUES",
        "INSERT INTO message VALUES (2), (3)",
        "INSERT INTO message VALUES ((SELECT 2))",
        "INSERT INTO message SELECT 2",
        "INSERT INTO message VALUES (2) ON CONFLICT DO NOTHING",
        "INSERT INTO message VALUES (1) ON CONFLICT (id) DO UPDATE SET body = 'x'",
    ],
)
def test_m1_an_insert_is_recorded_with_its_position(connection: Any, sql: str) -> None:
    if "DEFAULT VALUES" in sql:
        connection.execute("ALTER TABLE message ALTER id SET DEFAULT 2")
    assert isinstance(status_after(connection, sql), Position)


def test_m1_the_position_of_an_insert_includes_its_commit(connection: Any, pair: PostgreSQLPair) -> None:
    with closing(pair.connect()) as other:
        are_equal = []
        for number in range(2, 22):
            connection.execute("INSERT INTO message VALUES (%s)", (number,))
            position = connection.pop_write_status()
            row = other.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            assert row is not None
            latest = connection.position_at(row[0])
            assert latest.includes(position)
            are_equal.append(latest == position)
    assert any(are_equal)  # seldom, the server itself writes to its log in between


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO message VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO message SELECT 2 WHERE false",
        "INSERT INTO message (SELECT id FROM message WHERE id = 5)",
        "INSERT INTO message TABLE nothing LIMIT 0",
        "WITH added AS (SELECT 2 WHERE false) INSERT INTO message SELECT * FROM added",
    ],
)
def test_m1_an_insert_of_no_rows_makes_no_marker(connection: Any, sql: str) -> None:
    assert status_after(connection, sql) is Written.NO


@pytest.mark.parametrize("sql", ["INSERT INTO dropping VALUES (1)", "INSERT INTO nothing VALUES (1)"])
def test_m1_an_insert_whose_values_a_trigger_or_a_rule_discards_makes_a_marker(connection: Any, sql: str) -> None:
    assert isinstance(status_after(connection, sql), Position)


def test_m1_an_insert_that_fails_makes_no_marker(connection: Any) -> None:
    for _ in range(8):
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO message VALUES (1)")
        assert connection.pop_write_status() is Written.NO


def test_m1_an_insert_among_several_statements_is_recorded(connection: Any) -> None:
    for number in range(2, 10, 2):
        sql = f"INSERT INTO message VALUES ({number}); INSERT INTO message VALUES ({number + 1})"
        connection.execute(sql, prepare=False)
        assert connection.pop_write_status() is Written.ASK
