"""The positions of writes with asyncio drivers, on each kind of server: in which answer they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.asyncio_drivers import OF_SERVERS, PAIRS, address, installed
from tests.round_trips import RoundTrips
from tests.test_sqlalchemy.conftest import Message
from tests.test_sqlalchemy.conftest import address as address_of

from replswitch import carry, resume, unrecorded
from replswitch.decorators import use_master
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import Proxy, ReplicatedPair

ON_MYSQL = [f"{name} on MySQL" for name, pair in PAIRS.items() if pair == "mariadb_pair"]


@pytest.fixture(params=[*OF_SERVERS, *ON_MYSQL])
def served(request: pytest.FixtureRequest, empty: Callable[[str], None]) -> tuple[ReplicatedPair, str]:
    """A pair with an empty table of messages, and SQLAlchemy's name for the driver."""
    name, _, on_mysql = request.param.partition(" on ")
    installed(name)
    pair: ReplicatedPair = request.getfixturevalue("mysql_pair" if on_mysql else PAIRS[name])
    empty(address_of(pair.master, pair.driver))
    pair.wait_caught_up()
    return pair, name


@asynccontextmanager
async def master_of(
    served: tuple[ReplicatedPair, str], port: int | None = None, *, ours: bool = True, **options: Any
) -> AsyncIterator[AsyncEngine]:
    """The master's engine; its pool has one connection."""
    pair, driver = served
    settings = pair.master if port is None else {**pair.master, "port": port}
    master, slave = (create_async_engine(address(each, driver), **options) for each in (settings, *pair.slaves))
    if ours:
        replicate(master, [slave])
    try:
        async with master.connect():
            pass
        yield master
    finally:
        await master.dispose()
        await slave.dispose()


READ = text("SELECT body FROM message")
WRITE = insert(Message).values(body="x")


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"], ids=["in a transaction", "in autocommit mode"])
def test_p1_an_async_write_has_its_position_and_an_async_read_makes_no_marker(
    served: tuple[ReplicatedPair, str], level: str | None
) -> None:
    options: dict[str, Any] = {} if level is None else {"isolation_level": level}

    async def main() -> None:
        async with master_of(served, **options) as master:
            for statement in (READ, WRITE, READ, WRITE):
                with resume(""), use_master():
                    async with master.begin() as connection:
                        await connection.execute(statement)
                    assert ('"p":' in carry()) is (statement is WRITE), statement

    asyncio.run(main())


def test_m1_a_write_in_autocommit_mode_in_unrecorded_makes_no_marker_later(served: tuple[ReplicatedPair, str]) -> None:
    async def main() -> None:
        async with master_of(served, isolation_level="AUTOCOMMIT") as master:
            with resume(""), use_master():
                with unrecorded():
                    async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                        await session.execute(WRITE)
                async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                    await session.execute(READ)
                assert carry() == ""

    asyncio.run(main())


@pytest.mark.parametrize("statement", [READ, WRITE], ids=["a read", "a write"])
def test_p1_the_position_of_an_async_commit_costs_no_round_trip(
    served: tuple[ReplicatedPair, str], statement: Any
) -> None:
    async def trips(*, ours: bool) -> int:
        with Proxy(served[0].master["port"]) as proxy:
            async with master_of(served, proxy.port, ours=ours) as master:

                async def run() -> None:
                    async with master.begin() as connection:
                        await connection.execute(statement)

                await run()
                round_trips = RoundTrips(proxy)
                with resume(""), use_master(), round_trips.counted():
                    await run()
                return round_trips.count

    # With MariaDB and MySQL, the stock engine's pool rolls back once more after the commit.
    assert asyncio.run(trips(ours=True)) <= asyncio.run(trips(ours=False))
