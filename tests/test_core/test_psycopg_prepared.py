"""Statements that psycopg would prepare: after an error, they run as with psycopg alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from replswitch.drivers import load_driver
from replswitch.drivers.postgresql_statement import LONGEST, kept
from replswitch.testing import PostgreSQLPair

SEVERAL = "SELECT 1; SELECT 2"


@pytest.fixture(params=[True, False], ids=["autocommit", "in transactions"])
def connections(request: pytest.FixtureRequest, postgresql_pair: PostgreSQLPair) -> Iterator[list[Any]]:
    """Return a connection of psycopg alone, and one of replswitch."""
    kept.cache_clear()  # what is known of a statement
    opened = [psycopg.connect(**postgresql_pair.master, autocommit=True) for _ in range(2)]
    with closing(opened[0]), closing(opened[1]):
        driver: Any = load_driver("psycopg", binding=True)
        assert driver.take(opened[1], {}, read_only=False)
        for each in opened:
            each.autocommit = request.param
        yield opened


def outcomes(connection: Any, sql: str, prepare: bool | None) -> list[int | str | None]:
    """Run a statement ten times, and return the number of results or the error of each."""
    found: list[int | str | None] = []
    for _ in range(10):
        try:
            found.append(len(connection.execute(sql, prepare=prepare)._results))
        except psycopg.Error as error:
            found.append(error.sqlstate)
        connection.rollback()
    return found


@pytest.mark.parametrize("prepare", [None, True])
@pytest.mark.parametrize(
    "sql", [SEVERAL, f"{SEVERAL} -- {'x' * LONGEST}"], ids=["short text", "text too long for the cache"]
)
@pytest.mark.parametrize("threshold", [0, 1, 5, None])
def test_a_text_of_several_statements_has_the_same_outcome_as_with_psycopg_alone(
    connections: list[Any], sql: str, prepare: bool | None, threshold: int | None
) -> None:
    for each in connections:
        each.prepare_threshold = threshold
    stock, tracked = connections
    assert outcomes(tracked, sql, prepare) == outcomes(stock, sql, prepare)


@pytest.mark.parametrize("prepare", [None, True])
def test_a_statement_whose_preparation_has_failed_runs_once_its_table_exists(
    connections: list[Any], postgresql_pair: PostgreSQLPair, prepare: bool | None
) -> None:
    sql = "SELECT id FROM appearing"
    found: list[list[Any]] = [[], []]
    with closing(postgresql_pair.connect()) as other:
        other.execute("DROP TABLE IF EXISTS appearing")
        for is_there in (prepare is None, False, True):
            other.execute(
                f"{'CREATE' if is_there else 'DROP'} TABLE {'' if is_there else 'IF EXISTS'} appearing"
                + (" (id INT)" if is_there else "")
            )
            for each, outcome in zip(connections, found, strict=True):
                for _ in range(5 if is_there else 2):
                    try:
                        outcome.append(each.execute(sql, prepare=prepare).fetchall())
                    except psycopg.Error as error:
                        outcome.append(error.sqlstate)
                    each.commit()
        other.execute("DROP TABLE appearing")
    assert found[1] == found[0]
    assert found[0][-1] == []
