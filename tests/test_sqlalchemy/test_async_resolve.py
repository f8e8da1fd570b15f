"""An asyncio engine with ``resolve=true`` in its URL: each address of its host is a slave of its own (F7)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from tests.asyncio_drivers import OF_SERVERS, PAIRS, address, installed
from tests.behind_name import NAME, ONE, TWO, Clock, Names, ProxyAt, proxies

from replswitch import ConfigurationError
from replswitch.decorators import use_slave
from replswitch.sqlalchemy import EngineSwitch, RoutingSession, replicate
from replswitch.testing import ReplicatedPair

PAUSE = 100
"""After this time in seconds, the next read looks the name up, and waits for the answer."""

of_one_driver = pytest.mark.parametrize("driver", ["aiomysql"], indirect=True)


class Shop:
    """A replicated database with slaves behind `NAME`.

    Attributes:
        db: its switch.
        master: the engine of the master.
        slave: the engine with ``resolve=true``.
    """

    def __init__(self, master: AsyncEngine, slave: AsyncEngine) -> None:
        self.master, self.slave = master, slave
        self.db: EngineSwitch = replicate(master, [slave])
        self.session = async_sessionmaker(master, class_=AsyncSession, sync_session_class=RoutingSession)

    async def read(self) -> str:
        """Read in a scope of its own; return the name of the server."""
        with use_slave():
            async with self.session() as session:
                assert await session.scalar(text("SELECT 1")) == 1
                return await server_of(session)

    async def readers(self) -> set[str]:
        """Return the servers of some reads."""
        return {await self.read() for _ in range(25)}


async def server_of(session: AsyncSession) -> str:
    """Return the name of the server of a session's transaction."""
    connection: Any = await session.connection()
    return str(connection.sync_connection.info["replswitch.link"].server.name)


async def eventually(happens: Callable[[], object]) -> None:
    """Wait until something has happened."""
    async with asyncio.timeout(5):
        while not happens():
            await asyncio.sleep(0.005)


@pytest.fixture(params=OF_SERVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's name for the driver; the test runs with each that has servers."""
    return installed(request.param)


@pytest.fixture
def pair(request: pytest.FixtureRequest, driver: str) -> ReplicatedPair:
    """The pair of servers for the driver."""
    found: ReplicatedPair = request.getfixturevalue(PAIRS[driver])
    return found


@pytest.fixture
def at(pair: ReplicatedPair) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the slave at each address, all with one port."""
    with proxies(pair.slaves[0]["port"]) as found:
        yield found


Make = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def shop_on(pair: ReplicatedPair, driver: str, at: dict[str, ProxyAt], names: Names, clock: Clock) -> Make:
    """Makes a shop on the pair; ``of_slave`` are arguments of the slaves' engine."""

    @asynccontextmanager
    async def make(**of_slave: Any) -> AsyncIterator[Shop]:
        master = create_async_engine(address(pair.master, driver))
        url = master.url.set(host=NAME, port=at[ONE].port).update_query_dict({"resolve": "true"})
        shop = Shop(master, create_async_engine(url, **of_slave))
        try:
            yield shop
        finally:
            await master.dispose()
            await shop.slave.dispose()

    return make


def named(at: dict[str, ProxyAt], address: str) -> str:
    return f"{NAME} ({address}:{at[address].port})"


def test_f7_each_address_serves_and_a_new_one_joins_and_a_former_one_leaves(
    shop_on: Make, at: dict[str, ProxyAt], names: Names, clock: Clock
) -> None:
    one, two = named(at, ONE), named(at, TWO)

    async def main() -> None:
        async with shop_on() as shop:
            names.addresses = (ONE,)
            assert await shop.readers() == {one}
            names.addresses = (ONE, TWO)
            clock.passed += PAUSE
            assert await shop.readers() == {one, two}
            assert at[ONE].connections == at[TWO].connections == 1
            names.addresses = (TWO,)
            clock.passed += PAUSE
            assert await shop.readers() == {two}
            await eventually(lambda: at[ONE].connections == 0)
            assert names.asked == 3
            await shop.slave.dispose()
            await eventually(lambda: at[TWO].connections == 0)
            assert await shop.readers() == {two}

    asyncio.run(main())


def test_f7_a_link_to_an_address_refuses_writes(shop_on: Make, pair: ReplicatedPair, at: dict[str, ProxyAt]) -> None:
    async def main() -> None:
        for proxy in at.values():
            proxy.target = pair.master["port"]  # a server that would accept writes
        async with shop_on() as shop:
            await shop.read()
            for engine in shop.db.slaves:
                async with AsyncEngine(engine).connect() as connection:
                    with pytest.raises(DBAPIError, match=r"(?i)read.only"):
                        await connection.execute(text("CREATE TABLE refused (id INTEGER)"))

    asyncio.run(main())


@of_one_driver
def test_f7_a_transaction_ends_on_an_address_that_is_gone(
    shop_on: Make, at: dict[str, ProxyAt], names: Names, clock: Clock
) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            with use_slave():
                async with shop.session() as session:
                    await session.scalar(text("SELECT 1"))
                    first = await server_of(session)
                    gone, stays = (ONE, TWO) if ONE in first else (TWO, ONE)
                    names.addresses = (stays,)
                    clock.passed += PAUSE
                    await asyncio.create_task(shop.read())
                    assert [each.name for each in shop.db.servers.slaves] == [named(at, stays)]
                    assert await session.scalar(text("SELECT 2")) == 2
                    assert await server_of(session) == first
                    await session.commit()
                    await session.scalar(text("SELECT 3"))
                    assert await server_of(session) != first, "a running scope stays on an address that is gone"
            await shop.read()
            await eventually(lambda: at[gone].connections == 0)

    asyncio.run(main())


@of_one_driver
def test_f7_the_first_read_waits_for_the_lookup_but_does_not_block_the_event_loop(
    shop_on: Make, at: dict[str, ProxyAt], names: Names
) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            names.goes_on.clear()
            reading = asyncio.create_task(shop.read())
            await eventually(lambda: names.asked)
            for _ in range(20):  # the loop runs other tasks while the read waits
                await asyncio.sleep(0.001)
            assert not reading.done()
            names.goes_on.set()
            assert await reading in {named(at, ONE), named(at, TWO)}

    asyncio.run(main())


@of_one_driver
def test_f7_the_first_read_does_not_wait_for_a_lookup_that_hangs(shop_on: Make, names: Names) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            names.goes_on.clear()
            async with asyncio.timeout(5):
                assert await shop.read() == shop.db.master_name

    asyncio.run(main())


@of_one_driver
def test_f7_get_bind_outside_a_call_of_the_session_does_not_wait_for_a_lookup(shop_on: Make, names: Names) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            names.goes_on.clear()
            with use_slave():
                async with shop.session() as session:
                    assert session.sync_session.get_bind() is not None  # nothing could wait here

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy", "asyncpg"], indirect=True)
def test_f7_tls_that_would_verify_an_address_is_refused(shop_on: Make, driver: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def main() -> None:
        async with shop_on(connect_args={"ssl": context}) as shop:
            with pytest.raises(
                ConfigurationError, match=f"does not work with {driver} and a TLS setting that verifies"
            ):
                await shop.read()

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)
def test_f7_tls_verifies_the_name_with_psycopg(shop_on: Make) -> None:
    """libpq verifies ``host``, and connects to ``hostaddr``."""

    async def main() -> None:
        async with shop_on() as shop:
            await shop.read()
            for engine, at in zip(shop.db.slaves, (ONE, TWO), strict=True):
                async with AsyncEngine(engine).connect() as connection:
                    raw: Any = (await connection.get_raw_connection()).driver_connection
                    assert (raw.info.host, raw.info.hostaddr) == (NAME, at)

    asyncio.run(main())


def test_f7_a_driver_that_cannot_connect_to_an_address_is_refused() -> None:
    master, slave = map(create_async_engine, ("sqlite+aiosqlite:///m.db", "sqlite+aiosqlite:///s.db"))
    slave.sync_engine.url = slave.url.update_query_dict({"resolve": "true"})
    with pytest.raises(ConfigurationError, match="of slave number 1 does not work with aiosqlite"):
        replicate(master, [slave])
