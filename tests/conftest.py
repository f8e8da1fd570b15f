"""Which servers the tests run on, and by which driver: one more of them is one more line in `SERVED`."""

from __future__ import annotations

import gc
import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

import hypothesis
import pytest
from tests.behind_name import clock, names  # noqa: F401 - fixtures
from tests.parameter_names import name_of
from tests.toy_engine import TOY

from replswitch import ConfigurationError
from replswitch.drivers import Driver, load_driver
from replswitch.testing import MariaDBPair, MySQLPair, PostgreSQLPair, ReplicatedPair
from replswitch.testing.plugin import start_or_skip

SERVED: Final[dict[str, tuple[str, str | Driver]]] = {
    "mariadb": ("mariadb_pair", "pymysql"),
    "mariadb-mysqlclient": ("mariadb_pair", "mysqlclient"),
    "mysql": ("mysql_pair", "pymysql"),
    "mysql-mysqlclient": ("mysql_pair", "mysqlclient"),
    "postgresql": ("postgresql_pair", "psycopg"),
    "sqlite": ("sqlite_pair", "sqlite3"),
    "toy_engine": ("sqlite_pair", TOY),  # an engine that replswitch does not know
}
"""The pair's fixture, and the driver."""

OF_BINDINGS: Final[dict[str, tuple[str, str]]] = {"postgresql-psycopg2": ("postgresql_pair", "psycopg2")}
"""Likewise, with a driver that `connect()` refuses by its name: for tests that name it."""

LONGEST_FIRST: Final = (
    "tests/django_suite/test_with_pymysql.py",
    "tests/test_chaos/test_chaos.py",
    "tests/test_packaging/test_documentation_site.py",
    "tests/test_jobs/test_celery.py",
    "tests/test_django/backend/test_pymysql.py",
    "tests/django_suite/test_with_mysqlclient.py",
    "tests/test_django/requests/test_cache.py",
    "tests/test_django/backend/test_postgresql.py",
    "tests/test_django/requests/test_postgresql.py",
    "tests/test_django/requests/test_pymysql.py",
    "tests/django_suite/test_comparison.py",
    "tests/test_asgi/test_async_drivers.py",
    "tests/test_testing/test_promotion.py",
    "tests/test_testing/test_contract.py",
    "tests/test_sqlalchemy/test_contract.py",
    "tests/test_testing/test_plugin.py",
    "tests/test_examples/test_board.py",
    "tests/test_wsgi/test_own_write.py",
    "tests/test_engine/test_properties.py",
    "tests/test_sqlalchemy/test_faults.py",
    "tests/test_testing/test_servers.py",
    "tests/test_sqlalchemy/test_asyncio.py",
    "tests/test_sqlalchemy/test_async_positions.py",
    "tests/test_django/requests/test_peers.py",
    "tests/test_django/requests/test_debug_toolbar.py",
    "tests/test_core/test_connection.py",
    "tests/test_testing/test_postgresql.py",
    "tests/test_examples/test_shops.py",
    "tests/test_examples/test_shop_fastapi.py",
    "tests/test_examples/test_tutorial_fastapi.py",
    "tests/test_django/requests/test_threads_and_tasks.py",
    "tests/test_engine/test_simulated.py",
    "tests/test_wsgi/test_links.py",
)
"""The files that take longest. They begin first, so that none of them runs alone at the end."""


class Questions(NamedTuple):
    """The position queries of replswitch for a kind of server.

    Attributes:
        position: how far it is, and which server.
        written: what was written last.
    """

    position: str
    written: str


QUESTIONS: Final[dict[type[ReplicatedPair], Questions]] = {
    MariaDBPair: Questions(
        "SELECT @@GLOBAL.gtid_current_pos, IF(@@GLOBAL.log_slave_updates, @@GLOBAL.gtid_binlog_pos, NULL),"
        " @@server_id, @@hostname",
        "SELECT @@SESSION.last_gtid",
    ),
    MySQLPair: Questions(
        "SELECT @@GLOBAL.gtid_executed, @@server_uuid",
        "SELECT @@GLOBAL.gtid_executed, @@server_uuid, (SELECT VARIABLE_VALUE FROM"
        " performance_schema.session_status WHERE VARIABLE_NAME = 'Handler_prepare')",
    ),
}


class Served(NamedTuple):
    """A pair, and the driver that a test uses it with."""

    pair: ReplicatedPair
    driver: Any


@pytest.fixture(params=SERVED)
def served(request: pytest.FixtureRequest) -> Served:
    """Each kind of pair, with each of its drivers: up, replicating, without a lag and caught up."""
    pair, driver = {**SERVED, **OF_BINDINGS}[request.param]
    try:
        loaded = load_driver(driver, binding=request.param in OF_BINDINGS)
    except ConfigurationError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))
    return Served(request.getfixturevalue(pair), loaded if request.param in OF_BINDINGS else driver)


@pytest.fixture
def questions(served: Served) -> Questions:
    """The position queries for the servers of the pair. A pair of SQLite gets none."""
    return QUESTIONS[type(served.pair)]


@pytest.fixture(scope="module")
def message_pair_of_module() -> Iterator[MariaDBPair]:
    """A MariaDB master and two slaves; not reset for each test."""
    with MariaDBPair(slaves=2) as pair:
        yield pair


@pytest.fixture
def message_pair(message_pair_of_module: MariaDBPair) -> MariaDBPair:
    """A MariaDB master and two slaves, reset, with an empty table of messages."""
    message_pair_of_module.reset()
    with closing(message_pair_of_module.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
    message_pair_of_module.wait_caught_up()
    return message_pair_of_module


class Clones(NamedTuple):
    """Two replicated sets with one system identifier, and a table of messages in each.

    Attributes:
        longer: the set with the longer log.
        shorter: the other set. Its places in the log are all before those of the longer one.
    """

    longer: PostgreSQLPair
    shorter: PostgreSQLPair


@pytest.fixture(scope="session")
def clones() -> Iterator[Clones]:
    """Two PostgreSQL pairs, both on their first timeline. They are not reset for each test."""
    pairs = Clones(PostgreSQLPair(), PostgreSQLPair())
    try:
        for pair in pairs:
            start_or_skip(pair)
            with closing(pair.connect()) as connection:
                connection.execute("CREATE TABLE message (id SERIAL PRIMARY KEY, body TEXT)")
        with closing(pairs.longer.connect()) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, '', repeat('x', 4000000))")
        yield pairs
    finally:
        for pair in pairs:
            pair.close()


def pytest_configure() -> None:
    """Prepare the process of the tests (a hook of pytest)."""
    # Ctrl-C must stop the processes that tests start. A shell without job control starts `make test &` with SIGINT
    # ignored, and they would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # PyMySQL loads the certificates of the system for each connection, in 30 ms, and never verifies one with them.
    ssl.SSLContext.load_default_certs = lambda context, purpose=None: None  # type: ignore[assignment, method-assign]
    # On a busy machine, the slowness of an example says nothing about it.
    settings = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.register_profile("busy machine", settings)
    hypothesis.settings.load_profile("busy machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that take longest first (a hook of pytest)."""
    places = {config.rootpath / file: place for place, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Exempt all that was imported and collected from garbage collection (a hook of pytest)."""
    # Some hundred tests collect garbage or look through all objects. That took 0.2 s each with all tests in memory.
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name the parameters that pytest would only number (a hook of pytest)."""
    return name_of(val, argname)
