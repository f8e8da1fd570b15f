"""A session rolls back once at its end. The pool rolls back once more only what has run since then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tests.asyncio_drivers import address, installed
from tests.test_sqlalchemy.conftest import address as address_of

from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import MariaDBPair

READ = text("SELECT body FROM message")
WRITE = text("INSERT INTO message (body) VALUES ('new')")
CHAIN = text("SET SESSION completion_type = 'CHAIN'")
TIMES = 3


def rollbacks(pair: MariaDBPair, server: str) -> int:
    """How many rollbacks a server has run so far."""
    with closing(pair.connect(server)) as plain, plain.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_rollback'")
        return int(cursor.fetchone()[1])


def messages(pair: MariaDBPair) -> int:
    with closing(pair.connect("master")) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        return int(cursor.fetchone()[0])


InSession = Callable[[Callable[[Session], Any]], Awaitable[None]]


def on(pair: MariaDBPair, driver: str, run: Callable[[InSession], Awaitable[None]]) -> None:
    """Call a function with another one, which runs something in a session of its own."""

    async def main() -> None:
        engines = [create_async_engine(address(each, driver)) for each in (pair.master, pair.slaves[0])]
        replicate(engines[0], engines[1:])

        async def in_session(work: Callable[[Session], Any]) -> None:
            async with AsyncSession(engines[0], sync_session_class=RoutingSession) as session:
                await session.run_sync(work)

        try:
            await run(in_session)
        finally:
            for engine in engines:
                await engine.dispose()

    async def plain() -> None:
        master, slave = (create_engine(address_of(each, driver)) for each in (pair.master, pair.slaves[0]))
        replicate(master, [slave])

        async def in_session(work: Callable[[Session], Any]) -> None:
            with RoutingSession(master) as session:
                work(session)

        try:
            await run(in_session)
        finally:
            master.dispose()
            slave.dispose()

    asyncio.run(plain() if driver == "pymysql" else main())


@pytest.fixture(params=["aiomysql", "asyncmy", "pymysql"])
def driver(request: pytest.FixtureRequest, mariadb_pair: MariaDBPair, empty: Callable[[str], None]) -> str:
    empty(address_of(mariadb_pair.master, mariadb_pair.driver))
    mariadb_pair.wait_caught_up()
    return installed(request.param)


@pytest.mark.parametrize("state", [use_master, use_slave])
def test_a_session_that_reads_sends_one_rollback(mariadb_pair: MariaDBPair, driver: str, state: Any) -> None:
    server = "master" if state is use_master else mariadb_pair.slave_names[0]

    async def run(in_session: InSession) -> None:
        with state():
            await in_session(lambda session: session.execute(READ).all())
            before = rollbacks(mariadb_pair, server)
            for _ in range(TIMES):
                await in_session(lambda session: session.execute(READ).all())
        assert rollbacks(mariadb_pair, server) - before == TIMES

    on(mariadb_pair, driver, run)


def test_a_write_after_a_rollback_or_a_commit_is_rolled_back_by_the_pool(
    mariadb_pair: MariaDBPair, driver: str
) -> None:
    """The application uses the driver's cursor, so SQLAlchemy does not know of the transaction."""

    async def run(in_session: InSession) -> None:
        for end in ("rollback", "commit"):

            def write(session: Session, end: str = end) -> None:
                with closing(session.get_bind().raw_connection()) as raw, closing(raw.cursor()) as cursor:  # type: ignore[union-attr]
                    getattr(raw, end)()
                    cursor.execute(str(WRITE))

            await in_session(write)
        assert messages(mariadb_pair) == 0

    on(mariadb_pair, driver, run)


def test_a_transaction_begun_by_rollback_and_chain_is_rolled_back(mariadb_pair: MariaDBPair, driver: str) -> None:
    async def run(in_session: InSession) -> None:
        await in_session(lambda session: session.execute(READ).all())  # opens the connection
        before = rollbacks(mariadb_pair, "master")
        await in_session(lambda session: session.execute(CHAIN))
        assert rollbacks(mariadb_pair, "master") - before == 2

    on(mariadb_pair, driver, run)
