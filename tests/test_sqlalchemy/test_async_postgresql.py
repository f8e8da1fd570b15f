"""AsyncSession on a PostgreSQL pair, with asyncpg and psycopg, beyond what holds for every asyncio driver."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from tests.asyncio_drivers import OF_POSTGRESQL, address, installed
from tests.bouncer import DROPS_OPTIONS, bouncers
from tests.test_sqlalchemy.conftest import Base, Message

from replswitch import ConfigurationError, NoServerError, SlaveWriteError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.drivers.postgresql import READ_TIMEOUT
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import PostgreSQLPair, Proxy


@pytest.fixture(params=OF_POSTGRESQL)
def driver(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's name for the driver; the test runs with each."""
    return installed(request.param)


class Shop:
    """A replicated database with asynchronous engines.

    Attributes:
        engines: the master's and the slave's.
        session: makes its sessions.
    """

    def __init__(self, *engines: AsyncEngine) -> None:
        self.engines = engines
        self.session = async_sessionmaker(engines[0], class_=AsyncSession, sync_session_class=RoutingSession)

    async def dispose(self) -> None:
        for engine in self.engines:
            await engine.dispose()

    async def bodies(self) -> list[str]:
        async with self.session() as session:
            return list(await session.scalars(select(Message.body)))


def running(pair: PostgreSQLPair, driver: str, work: Callable[[Shop], Awaitable[None]], **options: Any) -> None:
    """Run something on a shop of the pair, whose master's engine has these options."""

    async def main() -> None:
        master, slave = (create_async_engine(address(each, driver), **options) for each in (pair.master, *pair.slaves))
        async with master.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        await master.dispose()
        pair.wait_caught_up()
        replicate(master, [slave])
        shop = Shop(master, slave)
        try:
            await work(shop)
        finally:
            await shop.dispose()

    asyncio.run(main())


def test_p1_each_async_commit_has_its_position(postgresql_pair: PostgreSQLPair, driver: str) -> None:
    async def work(shop: Shop) -> None:
        for is_write in (True, False, True):
            with resume(""), use_master():
                async with shop.session() as session:
                    if is_write:
                        await session.execute(insert(Message).values(body="x"))
                    await session.scalars(select(Message))
                    await session.commit()
                assert ('"postgresql:' in carry()) is is_write

    running(postgresql_pair, driver, work)


def test_m1_after_an_error_an_async_commit_rolls_back_and_makes_no_marker(
    postgresql_pair: PostgreSQLPair, driver: str
) -> None:
    async def work(shop: Shop) -> None:
        with resume(""), use_master():
            async with shop.engines[0].connect() as connection:
                await connection.execute(insert(Message).values(body="x"))
                with pytest.raises(DBAPIError):
                    await connection.execute(text("SELECT 1/0"))
                await connection.commit()
                assert list(await connection.execute(select(Message))) == []
            assert carry() == ""

    running(postgresql_pair, driver, work)


def test_m1_a_refused_async_commit_raises_its_error(postgresql_pair: PostgreSQLPair, driver: str) -> None:
    async def work(shop: Shop) -> None:
        async with shop.engines[0].connect() as connection:
            await connection.execute(
                text("ALTER TABLE message ADD CONSTRAINT once UNIQUE (body) DEFERRABLE INITIALLY DEFERRED")
            )
            await connection.commit()
            await connection.execute(insert(Message), [{"body": "x"}, {"body": "x"}])
            with pytest.raises(DBAPIError, match="once"):
                await connection.commit()
        with resume(""), use_master():
            assert await shop.bodies() == []

    running(postgresql_pair, driver, work)


END_SESSIONS = """\
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()
"""

LETS_WRITE = ["SET default_transaction_read_only = off", "BEGIN READ WRITE", "SET TRANSACTION READ WRITE"]


def test_s7_async_links_of_slave_state_stay_read_only(postgresql_pair: PostgreSQLPair, driver: str) -> None:
    """Also those to the master, which without slaves serves slave state."""

    async def main() -> None:
        pair = postgresql_pair
        master = create_async_engine(
            address({**pair.master, "password": "from connect_args"}, driver),
            connect_args={"password": pair.master["password"]},
        )
        db = replicate(master)
        shop = Shop(master, *map(AsyncEngine, db.slaves))
        async with master.connect(), master.connect():
            pass  # SQLAlchemy 2.0 keeps the arguments of one connection for the next
        with resume(""), use_slave():
            for statement in (*LETS_WRITE, "RESET ALL"):
                async with shop.session() as session:
                    options: Any = {"isolation_level": "AUTOCOMMIT", "postgresql_readonly": False}
                    with suppress(SlaveWriteError, DBAPIError):
                        await session.connection(execution_options=options)
                        await session.execute(text(statement))
                async with shop.session() as session:
                    assert await session.scalar(text("SHOW transaction_read_only")) == "on", statement
        await shop.dispose()

    asyncio.run(main())


def test_f3_a_standby_is_not_used_as_the_master(postgresql_pair: PostgreSQLPair, driver: str) -> None:
    async def main() -> None:
        master = create_async_engine(address(postgresql_pair.slaves[0], driver))
        db = replicate(master)
        shop = Shop(master, *map(AsyncEngine, db.slaves))
        with use_master(), pytest.raises(NoServerError):
            async with shop.session() as session:
                await session.execute(text("SELECT 1"))
        await shop.dispose()

    asyncio.run(main())


def test_f1_an_async_read_whose_session_the_server_has_ended_runs_again(
    postgresql_pair: PostgreSQLPair, driver: str
) -> None:
    async def work(shop: Shop) -> None:
        with resume(""), use_slave():
            for _ in range(2):
                assert await shop.bodies() == []
                with postgresql_pair.connect("slave") as connection:
                    connection.execute(END_SESSIONS)

    running(postgresql_pair, driver, work)


def test_f5_an_async_read_on_a_slave_that_does_not_answer_runs_on_the_master(
    postgresql_pair: PostgreSQLPair, driver: str
) -> None:
    limits = {"asyncpg": {"command_timeout": 0.3, "timeout": 0.3}, "psycopg": {"read_timeout": 0.3}}[driver]

    async def main() -> None:
        with Proxy(postgresql_pair.slaves[0]["port"]) as proxy:
            master = create_async_engine(address(postgresql_pair.master, driver))
            url = address({**postgresql_pair.slaves[0], "port": proxy.port}, driver)
            slave = create_async_engine(url, connect_args=limits)
            replicate(master, [slave])
            shop = Shop(master, slave)
            for _ in range(2):
                with resume(""), use_slave():
                    async with shop.session() as session:
                        assert await asyncio.wait_for(session.scalar(text("SELECT 1")), 10) == 1
                proxy.drop()
            await shop.dispose()

    asyncio.run(main())


@asynccontextmanager
async def behind_pgbouncer(pair: PostgreSQLPair, driver: str, more: Any, **options: Any) -> AsyncIterator[Shop]:
    """Engines whose connections go through PgBouncer, and the table."""
    with bouncers(pair, **more) as ports:
        servers = [{**each, "port": port} for each, port in zip((pair.master, *pair.slaves), ports, strict=True)]
        master, slave = (create_async_engine(address(each, driver), **options) for each in servers)
        replicate(master, [slave])
        shop = Shop(master, slave)
        try:
            async with master.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
                await connection.run_sync(Base.metadata.create_all)
            pair.wait_caught_up()
            yield shop
        finally:
            await shop.dispose()


def end_sessions(pair: PostgreSQLPair, server: str) -> None:
    """End all sessions of the application on a server."""
    with closing(pair.admin(server)) as admin:
        sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
        admin.execute(sql, [pair.user])


async def visit(shop: Shop) -> None:
    """Write and read, often enough for statements that psycopg would prepare."""
    for _ in range(6):
        with resume(""), use_slave():
            async with shop.session() as session:
                await session.execute(insert(Message).values(body="x"))
                await session.commit()
            token = carry()
        assert '"postgresql:' in token
        with resume(token), use_slave():
            assert len(await shop.bodies()) > 0
        with resume(""), use_slave():
            assert await shop.bodies() == []


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "AUTOCOMMIT"])
@pytest.mark.parametrize("more", [{}, DROPS_OPTIONS], ids=["PgBouncer refuses options", "PgBouncer drops options"])
def test_m1_behind_pgbouncer_async_sessions_see_their_own_writes(
    postgresql_pair: PostgreSQLPair, driver: str, more: dict[str, str], isolation_level: str
) -> None:
    pair = postgresql_pair

    async def main() -> None:
        async with behind_pgbouncer(pair, driver, more, isolation_level=isolation_level) as shop:
            for engine in shop.engines:
                async with engine.connect() as connection:
                    raw: Any = (await connection.get_raw_connection()).driver_connection
                    if driver == "psycopg":
                        assert raw.prepare_threshold is None
                    if engine is shop.engines[1]:
                        limit = raw.limit if driver == "psycopg" else raw._config.command_timeout
                        assert limit == READ_TIMEOUT
            pair.stop_slave()
            await asyncio.gather(*[visit(shop) for _ in range(3)])  # PgBouncer has two connections to each server

    asyncio.run(main())


def test_f5_behind_pgbouncer_a_slow_async_read_ends_by_its_time_out(
    postgresql_pair: PostgreSQLPair, driver: str
) -> None:
    limit = {"asyncpg": {"command_timeout": 2}, "psycopg": {"read_timeout": 2}}[driver]
    is_slave = text("SELECT pg_is_in_recovery() FROM pg_sleep(:seconds)")

    async def main() -> None:
        async with behind_pgbouncer(postgresql_pair, driver, {}, connect_args=limit) as shop:
            with use_slave():
                async with shop.session() as session:
                    with pytest.raises(DBAPIError):
                        await session.scalar(is_slave, {"seconds": 20})
                    await session.rollback()
            with use_slave():
                async with shop.session() as session:
                    assert await session.scalar(is_slave, {"seconds": 0}) is True

    try:
        asyncio.run(main())
    finally:
        end_sessions(postgresql_pair, "slave")  # the slow read still runs there


def test_behind_pgbouncer_the_error_of_asyncpgs_named_statements_says_what_to_set(
    postgresql_pair: PostgreSQLPair,
) -> None:
    installed("asyncpg")
    numbers = itertools.count()
    names = {"prepared_statement_name_func": lambda: f"of_the_application_{next(numbers)}"}

    async def main() -> str:
        async with behind_pgbouncer(postgresql_pair, "asyncpg", {}, connect_args=names) as shop:
            master = shop.engines[0]
            for _ in range(20):
                try:
                    async with master.connect() as connection:
                        await connection.execute(select(Message.body))
                except DBAPIError as error:
                    if "prepared statement" in str(error):
                        return str(error)
                end_sessions(postgresql_pair, "master")  # PgBouncer then takes another one
        return "no error"

    assert "leave the settings statement_cache_size and prepared_statement_name_func out" in asyncio.run(main())


def test_serializable_engines_of_slaves_are_refused(postgresql_pair: PostgreSQLPair, driver: str) -> None:
    urls = [address(each, driver) for each in (postgresql_pair.master, *postgresql_pair.slaves)]
    with pytest.raises(ConfigurationError, match="REPEATABLE READ"):
        replicate(create_async_engine(urls[0]), [create_async_engine(urls[1], isolation_level="SERIALIZABLE")])
