"""The pytest plugin with throw-away pairs as fixtures. It is installed with replswitch, and pytest finds it.

A pair is started by the first test that asks for it and serves the whole session. At the beginning of each test, all
servers are up and replicate, without a lag, and have caught up. The data of earlier tests stays.

==============================  =====================================================================
``mariadb_pair``                a MariaDB master and one slave
``mysql_pair``                  a MySQL master and one slave
``sqlite_pair``                 a SQLite master and one slave
``postgresql_pair``             a PostgreSQL master and one slave
``replicated_pair``             the test runs three times: with each of the first three
``mariadb_pair_of_session``     the same pair for fixtures of session scope: not reset for each test
``mysql_pair_of_session``       ``mysql_pair``, not reset for each test
``sqlite_pair_of_session``      ``sqlite_pair``, not reset for each test
``postgresql_pair_of_session``  ``postgresql_pair``, not reset for each test
==============================  =====================================================================

If a server is not installed, the tests that need it are skipped. They fail if the environment variable ``CI``
is set (and is not ``false`` or ``0``), so that CI does not skip them unnoticed.

``assert_reads_on`` is the function `replswitch.testing.assert_reads_on`, as a fixture.

After each test, applications forget which of their endpoints have written (R5), even in tests without a pair.

pytest loads this module in every run, even in those that never ask for a pair, so no driver is
imported before a pair is started.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from replswitch.request.replay import forget_endpoints
from replswitch.testing import (
    MariaDBPair,
    MySQLPair,
    PairError,
    PostgreSQLPair,
    ReplicatedPair,
    ServerNotFoundError,
    SQLitePair,
)
from replswitch.testing.reads import assert_reads_on as check_reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from replswitch.testing.reads import Reads

logger = logging.getLogger(__name__)


def pytest_runtest_teardown() -> None:
    """Forget which endpoints have written, so that the next test does not depend on this test (R5)."""
    forget_endpoints()


def start_or_skip(pair: ReplicatedPair) -> None:
    """Start a pair. If its server is not installed, skip the test, or fail it if the variable CI is set."""
    try:
        pair.start()
    except ServerNotFoundError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mariadb_pair_of_session() -> Iterator[MariaDBPair]:
    """A MariaDB master and one slave. They are not reset for each test."""
    pair = MariaDBPair()
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def mysql_pair_of_session() -> Iterator[MySQLPair]:
    """A MySQL master and one slave. They are not reset for each test."""
    pair = MySQLPair()
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def sqlite_pair_of_session() -> Iterator[SQLitePair]:
    """A SQLite master and one slave. They are not reset for each test."""
    with SQLitePair() as pair:
        yield pair


@pytest.fixture(scope="session")
def postgresql_pair_of_session() -> Iterator[PostgreSQLPair]:
    """A PostgreSQL master and one slave. They are not reset for each test."""
    pair = PostgreSQLPair()
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture
def mariadb_pair(mariadb_pair_of_session: MariaDBPair) -> MariaDBPair:
    """A MariaDB master and one slave. They are up, replicate without a lag, and have caught up."""
    _refresh(mariadb_pair_of_session)
    return mariadb_pair_of_session


@pytest.fixture
def mysql_pair(mysql_pair_of_session: MySQLPair) -> MySQLPair:
    """A MySQL master and one slave. They are up, replicate without a lag, and have caught up."""
    _refresh(mysql_pair_of_session)
    return mysql_pair_of_session


@pytest.fixture
def sqlite_pair(sqlite_pair_of_session: SQLitePair) -> SQLitePair:
    """A SQLite master and one slave. They are up, replicate without a lag, and have caught up."""
    _refresh(sqlite_pair_of_session)
    return sqlite_pair_of_session


@pytest.fixture
def postgresql_pair(postgresql_pair_of_session: PostgreSQLPair) -> PostgreSQLPair:
    """A PostgreSQL master and one slave. They are up, replicate without a lag, and have caught up."""
    _refresh(postgresql_pair_of_session)
    return postgresql_pair_of_session


@pytest.fixture(params=["mariadb", "mysql", "sqlite"])
def replicated_pair(request: pytest.FixtureRequest) -> ReplicatedPair:
    """A pair of MariaDB, of MySQL and of SQLite, one after the other; each up, replicating without a lag, caught up."""
    pair: ReplicatedPair = request.getfixturevalue(f"{request.param}_pair")
    return pair


@pytest.fixture
def assert_reads_on() -> Callable[..., AbstractContextManager[Reads]]:
    """The function `replswitch.testing.assert_reads_on`, for a block that fails if it reads on the wrong side."""
    return check_reads


def _refresh(pair: ReplicatedPair) -> None:
    """Undo what the last test did to the servers. If that fails, start a new pair instead of failing every test."""
    try:
        pair.reset()
    except PairError as error:
        logger.warning("the pair cannot be reset, so an empty one is started: %s", error)
        with suppress(PairError):
            pair.close()
        pair.start()
