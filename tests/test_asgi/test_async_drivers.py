"""FastAPI and AsyncSession on pairs of servers: own writes, slaves that serve again at once, a slave that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.asyncio_drivers import OF_SERVERS, PAIRS, address, installed
from tests.test_asgi.conftest import App, Browser
from tests.test_wsgi.conftest import SECRET, empty_table

from replswitch.asgi import ReplicationMiddleware
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import ReplicatedPair

fastapi = pytest.importorskip("fastapi")


@pytest.fixture(params=OF_SERVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's name for the driver; the test runs with each."""
    return installed(request.param)


@pytest.fixture
def pair(request: pytest.FixtureRequest, driver: str) -> ReplicatedPair:
    """The pair of servers for the driver, with a table of numbers."""
    found: ReplicatedPair = request.getfixturevalue(PAIRS[driver])
    empty_table(found)
    return found


@asynccontextmanager
async def shop_on(pair: ReplicatedPair, driver: str) -> AsyncIterator[App]:
    """An application on the pair: a POST of a number writes it, and a GET shows all numbers; both as JSON."""
    patient = {"timeout" if driver == "asyncpg" else "connect_timeout": 30}  # on a busy machine, 3 seconds pass
    master, *slaves = engines = [
        create_async_engine(address(each, driver), connect_args=patient) for each in (pair.master, *pair.slaves)
    ]
    replicate(master, slaves)
    session_of = async_sessionmaker(master, class_=AsyncSession, sync_session_class=RoutingSession)
    api = fastapi.FastAPI()

    async def numbers() -> list[int]:
        async with session_of() as session:
            return list(await session.scalars(text("SELECT n FROM wsgi_message")))

    async def add(n: int) -> None:
        async with session_of.begin() as session:
            await session.execute(text("INSERT INTO wsgi_message VALUES (:n)"), {"n": n})

    api.get("/")(numbers)
    api.post("/", status_code=201)(add)
    try:
        yield ReplicationMiddleware(api, SECRET, debug_header=True)
    finally:
        for engine in engines:
            await engine.dispose()


async def visit(app: App, number: int, wait: Callable[[], object] = lambda: None) -> Any:
    """Write a number, wait, and return the next page if it shows the number."""
    browser = Browser(app)
    assert len((await browser.asend("POST", f"n={number}")).cookies) == 1
    await asyncio.to_thread(wait)
    answer = await browser.asend()
    return answer if str(number).encode() in answer.body.strip(b"[]").split(b",") else None


def test_m1_visitors_see_their_own_writes_and_a_slave_that_keeps_up_serves_them(
    pair: ReplicatedPair, driver: str
) -> None:
    async def main() -> None:
        async with shop_on(pair, driver) as app:
            pair.lag = 60
            assert all(await asyncio.gather(*(visit(app, number) for number in range(2, 22)))), "stale"
            pair.lag = 0
            found = [await visit(app, number, pair.wait_caught_up) for number in range(22, 42)]
            assert all(found), "stale"
            assert {answer.side for answer in found} == {"slave"}

    asyncio.run(main())


def test_f1_no_read_fails_when_a_slave_is_killed(pair: ReplicatedPair, driver: str) -> None:
    async def main() -> None:
        async with shop_on(pair, driver) as app:
            reads = [asyncio.create_task(Browser(app).asend()) for _ in range(200)]
            await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(pair.kill, "slave")
            answers = [*await asyncio.gather(*reads), await Browser(app).asend()]
            assert [answer.code for answer in answers] == [200] * 201
            assert {answer.side for answer in answers} == {"slave", "master"}

    asyncio.run(main())
