"""PyMySQL's descriptions of columns are parsed once and kept, and nothing is different for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import DictCursor, SSCursor

from replswitch.drivers.pymysql import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.drivers.tracking_connection import TrackingConnection
    from replswitch.testing import MariaDBPair, MySQLPair

    Pair = MariaDBPair | MySQLPair

STATEMENTS = [
    "SELECT 1",
    "SELECT 1, 1e3, 'text', NULL, x'00ff'",
    "SELECT DATE '2024-02-29', TIMESTAMP '2024-02-29 12:00:00', TIME '01:02:03'",
    "SELECT * FROM typed",
    "SELECT id AS a FROM typed",
    "SELECT body AS a FROM typed",
    "SELECT 1 WHERE 0",
    "SELECT 'ä' AS a",
]


@pytest.fixture(params=["mariadb_pair", "mysql_pair"])
def pair(request: pytest.FixtureRequest) -> Pair:
    pair: Pair = request.getfixturevalue(request.param)
    with pair.admin() as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS shop.typed")
        cursor.execute(
            "CREATE TABLE shop.typed (id BIGINT UNSIGNED PRIMARY KEY, body TEXT, raw BLOB, j JSON, b BIT(3), "
            "s SET('x', 'y'), t TIME(3)) CHARSET utf8mb4"
        )
        cursor.execute("INSERT INTO shop.typed VALUES (7, 'ä', x'00', '{}', b'101', 'x,y', '01:02:03.004')")
    return pair


def ours(pair: Pair, **settings: Any) -> TrackingConnection:
    return DRIVER.open(pair.master | settings, read_only=False)


def seen(connection: Any, sql: str, cursorclass: Any = None) -> tuple[Any, Any]:
    with connection.cursor(cursorclass) as cursor:
        cursor.execute(sql)
        return cursor.description, cursor.fetchall()


# No DECIMAL: without Unicode PyMySQL cannot convert it.
@pytest.mark.parametrize("cursorclass", [None, DictCursor, SSCursor], ids=["Cursor", "DictCursor", "SSCursor"])
@pytest.mark.parametrize("settings", [{}, {"use_unicode": False}, {"charset": "latin1"}])
def test_the_results_of_a_connection_equal_those_of_pymysql(pair: Pair, settings: Any, cursorclass: Any) -> None:
    with pymysql.connect(**pair.master, **settings) as bare, ours(pair, **settings) as connection:
        for sql in [*STATEMENTS, *STATEMENTS]:
            assert seen(connection, sql, cursorclass) == seen(bare, sql, cursorclass), sql


def test_the_converters_of_the_application_are_used(pair: Pair) -> None:
    settings = {"conv": conversions | {FIELD_TYPE.LONGLONG: lambda value: f"number {value}"}}
    with ours(pair, **settings) as connection:
        assert [seen(connection, "SELECT id FROM typed")[1] for _ in range(2)] == [(("number 7",),)] * 2


def test_a_result_of_an_altered_table_gets_a_new_description(pair: Pair) -> None:
    with ours(pair) as connection, pair.admin() as admin, admin.cursor() as cursor:
        before = seen(connection, "SELECT * FROM typed")
        cursor.execute("ALTER TABLE shop.typed MODIFY id VARCHAR(20), DROP raw")
        after = seen(connection, "SELECT * FROM typed")
    assert before[1][0][0] == 7
    assert after[1][0][0] == "7"
    assert len(after[0]) == len(before[0]) - 1


def test_rows_are_decoded_with_the_character_set_in_use(pair: Pair) -> None:
    with ours(pair) as connection:
        for charset in ("utf8mb4", "latin1", "utf8mb4"):
            connection.set_character_set(charset)
            assert seen(connection, "SELECT body FROM typed")[1] == (("ä",),)


def names(connection: TrackingConnection, numbers: range) -> Iterator[str]:
    for number in numbers:
        ((name, *_),) = seen(connection, f"SELECT 1 AS n{number}")[0]
        yield name


def test_at_most_a_hundred_result_descriptions_are_kept(pair: Pair) -> None:
    with ours(pair) as connection:
        for numbers in (range(250), range(250)):
            assert list(names(connection, numbers)) == [f"n{number}" for number in numbers]
            assert len(connection.descriptions) <= 100
