"""Tasks that are cancelled: what they have committed is recorded (M1), and no other error replaces the cancellation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.asyncio_drivers import OF_POSTGRESQL, OF_SERVERS, PAIRS, address, installed
from tests.partial_commits import INSERT, has_committed, prepare

from replswitch import carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import PostgreSQLPair

OF_MYSQL: Final = [(driver, pair) for driver in ("aiomysql", "asyncmy") for pair in ("mariadb_pair", "mysql_pair")]
MULTI_STATEMENTS: Final = 1 << 16

Work = Callable[[AsyncSession], Awaitable[Any]]


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Any:
    """A pair with the table of the statements, and procedures that commit a row."""
    pair = request.getfixturevalue(request.param)
    if request.param == "sqlite_pair":
        with closing(pair.connect()) as plain:
            plain.executescript("DROP TABLE IF EXISTS partial; CREATE TABLE partial (id INT PRIMARY KEY)")
        return pair
    prepare(pair)
    if not isinstance(pair, PostgreSQLPair):
        with closing(pair.connect()) as plain, plain.cursor() as cursor:
            for name, rest in (("commits", ""), ("commits_and_waits", "DO SLEEP(600);")):
                cursor.execute(f"DROP PROCEDURE IF EXISTS {name}")
                cursor.execute(f"CREATE PROCEDURE {name}() BEGIN {INSERT}; COMMIT; {rest} END")
    return pair


def token_after_cancellation(driver: str, pair: Any, work: Work) -> str:
    """Cancel the work of a session as soon as the row is committed. Return what the request knows of its writes."""
    options = {"client_flag": MULTI_STATEMENTS} if driver in {"aiomysql", "asyncmy"} else {}

    async def run(master: AsyncEngine) -> None:
        async with AsyncSession(master, sync_session_class=RoutingSession) as session:
            await work(session)
            pytest.fail("the work ended before its task was cancelled")

    async def main() -> str:
        urls = [address(each, installed(driver)) for each in (pair.master, *pair.slaves)]
        master, slave = (create_async_engine(url, connect_args=options) for url in urls)
        replicate(master, [slave])
        try:
            with resume(""), use_master():
                task = asyncio.create_task(run(master))
                while not await asyncio.to_thread(has_committed, pair):
                    if task.done():
                        task.result()  # raise its error
                await asyncio.sleep(0.05)  # the next statement begins
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return carry()
        finally:
            await master.dispose()
            await slave.dispose()

    return asyncio.run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # SQLAlchemy 2.0 leaves this connection open
@pytest.mark.parametrize("state", [use_master, use_slave])
@pytest.mark.parametrize("driver", OF_SERVERS)
def test_f5_a_task_that_is_cancelled_while_its_engine_connects_for_the_first_time_raises_no_other_error(
    request: pytest.FixtureRequest, driver: str, state: Any
) -> None:
    pair = request.getfixturevalue(PAIRS[driver])

    async def main() -> None:
        urls = [address(each, installed(driver)) for each in (pair.master, *pair.slaves)]
        master, slave = map(create_async_engine, urls)
        replicate(master, [slave])
        began = asyncio.Event()

        def query_slowly(connection: Connection) -> None:
            began.set()
            connection.exec_driver_sql("SELECT pg_sleep(2)" if driver in OF_POSTGRESQL else "SELECT SLEEP(2)")

        async def run() -> None:
            async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                with state():
                    await session.execute(text("SELECT 1"))

        for each in (master, slave):
            dialect: Any = each.sync_engine.dialect
            dialect._get_default_schema_name = query_slowly
        task = asyncio.create_task(run())
        await began.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await master.dispose()
        await slave.dispose()

    asyncio.run(main())
    gc.collect()  # so that the warning about the connection comes now


def test_s6_a_read_on_the_slave_through_psycopg_whose_task_is_cancelled_does_not_run_on(
    postgresql_pair: PostgreSQLPair,
) -> None:
    """asyncpg itself tries to end such a statement, but SQLAlchemy may close the connection first."""

    def is_running() -> bool:
        sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300%' AND state = 'active'"
        with closing(postgresql_pair.connect("slave")) as plain, plain.cursor() as cursor:
            cursor.execute(sql)
            return bool(cursor.fetchone() != (0,))

    async def main() -> None:
        pair = postgresql_pair
        urls = [address(each, installed("psycopg")) for each in (pair.master, *pair.slaves)]
        master, slave = map(create_async_engine, urls)
        replicate(master, [slave])

        async def run() -> None:
            async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                with use_slave():
                    await session.execute(text("SELECT pg_sleep(300)"))

        task = asyncio.create_task(run())
        while not await asyncio.to_thread(is_running):
            assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            while await asyncio.to_thread(is_running):
                pass
        await master.dispose()
        await slave.dispose()

    asyncio.run(main())


async def one_text(session: AsyncSession) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql(f"{INSERT}; COMMIT; SELECT pg_sleep(60)")


async def one_text_that_begins_again(session: AsyncSession) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql(f"{INSERT}; COMMIT; BEGIN; SELECT pg_sleep(60)")


async def a_text_before_the_statement(session: AsyncSession) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql(f"{INSERT}; COMMIT; BEGIN")
    await connection.exec_driver_sql("SELECT pg_sleep(60)")


@pytest.mark.parametrize("work", [one_text, one_text_that_begins_again, a_text_before_the_statement])
@pytest.mark.parametrize("pair", ["postgresql_pair"], indirect=True)
def test_m1_a_commit_in_a_text_of_several_statements_is_recorded_although_its_task_was_cancelled(
    pair: Any, work: Work
) -> None:
    assert token_after_cancellation("psycopg", pair, work) != ""


async def on_the_drivers_connection(session: AsyncSession, *texts: str) -> None:
    raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    for each in texts:
        await raw.execute(each)


@pytest.mark.parametrize(
    "texts",
    [
        (f"{INSERT}; COMMIT; SELECT pg_sleep(60)",),
        (f"{INSERT}; COMMIT; BEGIN; SELECT pg_sleep(60)",),
        (f"{INSERT}; COMMIT; BEGIN", "SELECT pg_sleep(60)"),
        ("BEGIN", f"{INSERT}; COMMIT; BEGIN; SELECT pg_sleep(60)"),
    ],
    ids=["one text", "one that begins again", "before the statement", "in a transaction"],
)
@pytest.mark.parametrize("driver", OF_POSTGRESQL)
@pytest.mark.parametrize("pair", ["postgresql_pair"], indirect=True)
def test_m1_a_commit_on_the_drivers_own_connection_is_recorded_although_its_task_was_cancelled(
    driver: str, pair: Any, texts: tuple[str, ...]
) -> None:
    def work(session: AsyncSession) -> Awaitable[None]:
        return on_the_drivers_connection(session, *texts)

    assert token_after_cancellation(driver, pair, work) != ""


async def a_procedure_before_the_statement(session: AsyncSession) -> None:
    await session.execute(text("CALL commits()"))
    await session.execute(text("SELECT SLEEP(60)"))


async def a_definition_before_the_statement(session: AsyncSession) -> None:
    await session.execute(text(INSERT))
    await session.execute(text("DROP TABLE IF EXISTS no_such_table"))
    await session.execute(text("SELECT SLEEP(60)"))


async def unread_results_before_the_statement(session: AsyncSession) -> None:
    raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    await raw.query("SELECT 1; CALL commits_and_waits()")
    await session.execute(text("SELECT 2"))


@pytest.mark.parametrize(
    "work",
    [a_procedure_before_the_statement, a_definition_before_the_statement, unread_results_before_the_statement],
)
@pytest.mark.parametrize(("driver", "pair"), OF_MYSQL, indirect=["pair"])
def test_m1_a_commit_of_an_earlier_statement_is_recorded_although_the_task_of_a_later_one_was_cancelled(
    driver: str, pair: Any, work: Work
) -> None:
    assert token_after_cancellation(driver, pair, work) != ""


async def a_savepoint_before_the_statement(session: AsyncSession) -> None:
    async with session.begin_nested():
        await session.execute(text(INSERT))
    await session.execute(
        text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000000) SELECT COUNT(*) FROM n")
    )


@pytest.mark.parametrize("pair", ["sqlite_pair"], indirect=True)
def test_m1_a_savepoint_that_has_committed_is_recorded_although_the_task_of_a_later_statement_was_cancelled(
    pair: Any,
) -> None:
    assert token_after_cancellation("aiosqlite", pair, a_savepoint_before_the_statement) != ""
