"""What a statement has committed before its error is recorded as well (M1), with each driver of SQLAlchemy."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.asyncio_drivers import installed
from tests.partial_commits import INSERT, STATEMENTS, commits, has_committed, names, prepare
from tests.test_sqlalchemy.conftest import address

from replswitch import carry, resume
from replswitch.decorators import use_master
from replswitch.sqlalchemy import RoutingSession, replicate

ON_MYSQL: Final = ("mariadb_pair", "mysql_pair")
SYNC: Final = [
    *((driver, pair) for driver in ("pymysql", "mysqldb") for pair in ON_MYSQL),
    *((driver, "postgresql_pair") for driver in ("psycopg", "psycopg2")),
]
ASYNC: Final = [
    *((driver, pair) for driver in ("aiomysql", "asyncmy") for pair in ON_MYSQL),
    *((driver, "postgresql_pair") for driver in ("asyncpg", "psycopg")),
]

Row = tuple[str, str, str]


def cases(drivers: list[tuple[str, str]]) -> list[Row]:
    """Return the names of the statements whose error SQLAlchemy does not hide, for each driver and pair."""
    found = [(driver, pair, name) for driver, pair in drivers for name in names(pair)]
    on_postgresql = {"text with COMMIT", "text with BEGIN and COMMIT"}
    return [
        (driver, pair, name)
        for driver, pair, name in found
        if name != "text with COMMIT AND CHAIN"
        and (name not in on_postgresql or (pair == "postgresql_pair" and driver != "asyncpg"))
    ]


def run(connection: Connection, name: str) -> None:
    """Run the statements; the last one fails."""
    *before, last = STATEMENTS[name]
    for sql in before:
        connection.exec_driver_sql(sql)
    with pytest.raises(DBAPIError):
        connection.exec_driver_sql(last)


def in_a_session(engine: Engine, name: str) -> None:
    with RoutingSession(engine) as session:
        run(session.connection(), name)


def in_a_connection(engine: Engine, name: str) -> None:
    with engine.connect() as connection:
        run(connection, name)


async def in_an_async_session(engine: AsyncEngine, name: str) -> None:
    async with AsyncSession(engine, sync_session_class=RoutingSession) as session:
        await (await session.connection()).run_sync(run, name)


async def in_an_async_connection(engine: AsyncEngine, name: str) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(run, name)


async def in_an_async_session_that_is_cancelled(engine: AsyncEngine) -> None:
    async with AsyncSession(engine, sync_session_class=RoutingSession) as session:
        await session.execute(text("CALL commit_and_wait()"))


async def in_an_async_connection_that_is_cancelled(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("CALL commit_and_wait()"))


modes = pytest.mark.parametrize("level", [None, "AUTOCOMMIT"], ids=["in a transaction", "in autocommit"])


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Any:
    """A pair with the table and the procedure of the statements."""
    pair = request.getfixturevalue(request.param)
    prepare(pair)
    return pair


def check(pair: Any, name: str, level: str | None, token: str) -> None:
    is_known = commits(pair, name, in_transaction=level is None)
    assert (has_committed(pair), token != "") == (is_known, is_known)


@modes
@pytest.mark.parametrize("work", [in_a_session, in_a_connection])
@pytest.mark.parametrize(("driver", "pair", "name"), cases(SYNC), indirect=["pair"])
def test_m1_what_a_statement_has_committed_before_its_error_is_recorded(
    driver: str, pair: Any, name: str, work: Callable[[Engine, str], None], level: Any
) -> None:
    installed({"mysqldb": "MySQLdb"}.get(driver, driver))
    options = {} if level is None else {"isolation_level": level}
    master, slave = (create_engine(address(each, driver), **options) for each in (pair.master, *pair.slaves))
    replicate(master, [slave])
    with resume(""), use_master():
        work(master, name)
        token = carry()
    master.dispose()
    slave.dispose()
    check(pair, name, level, token)


class TimeLimitError(Exception):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("pair", ["postgresql_pair"], indirect=True)
def test_m1_what_a_text_has_committed_before_a_signal_has_interrupted_it_is_recorded(driver: str, pair: Any) -> None:
    def end(*_: Any) -> None:
        raise TimeLimitError

    master, slave = (create_engine(address(each, installed(driver))) for each in (pair.master, *pair.slaves))
    replicate(master, [slave])
    before = signal.signal(signal.SIGUSR1, end)
    timer = threading.Timer(0.5, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    try:
        with resume(""), use_master():
            with RoutingSession(master) as session:
                connection = session.connection()
                timer.start()
                with pytest.raises(TimeLimitError):
                    connection.exec_driver_sql(f"{INSERT}; COMMIT; SELECT pg_sleep(2)")
            token = carry()
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
    master.dispose()
    slave.dispose()
    assert (has_committed(pair), token != "") == (True, True)


@modes
@pytest.mark.parametrize("work", [in_an_async_session, in_an_async_connection])
@pytest.mark.parametrize(("driver", "pair", "name"), cases(ASYNC), indirect=["pair"])
def test_m1_what_a_statement_has_committed_before_its_error_is_recorded_with_asyncio(
    driver: str, pair: Any, name: str, work: Any, level: Any
) -> None:
    options = {} if level is None else {"isolation_level": level}

    async def main() -> str:
        urls = [address(each, installed(driver)) for each in (pair.master, *pair.slaves)]
        master, slave = (create_async_engine(url, **options) for url in urls)
        replicate(master, [slave])
        try:
            with resume(""), use_master():
                await work(master, name)
                return carry()
        finally:
            await master.dispose()
            await slave.dispose()

    check(pair, name, level, asyncio.run(main()))


@pytest.mark.parametrize("work", [in_an_async_session_that_is_cancelled, in_an_async_connection_that_is_cancelled])
@pytest.mark.parametrize(("driver", "pair"), [row for row in ASYNC if row[1] in ON_MYSQL], indirect=["pair"])
def test_m1_what_a_procedure_has_committed_before_its_task_was_cancelled_is_recorded(
    driver: str, pair: Any, work: Any
) -> None:
    async def main() -> str:
        urls = [address(each, installed(driver)) for each in (pair.master, *pair.slaves)]
        master, slave = map(create_async_engine, urls)
        replicate(master, [slave])
        try:
            with resume(""), use_master():
                task = asyncio.create_task(work(master))
                while not await asyncio.to_thread(has_committed, pair):
                    assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return carry()
        finally:
            await master.dispose()
            await slave.dispose()

    with closing(pair.connect()) as plain, plain.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS commit_and_wait")
        cursor.execute(f"CREATE PROCEDURE commit_and_wait() BEGIN {INSERT}; COMMIT; DO SLEEP(600); END")
    assert asyncio.run(main()) != ""
