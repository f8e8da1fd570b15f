"""AsyncSession in an ASGI application: routed, no visitor misses their own write, and a GET that writes runs again."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from tests.test_asgi.conftest import App, Browser, Receive, Send, respond
from tests.test_wsgi.conftest import SECRET, empty_table

from replswitch import unrecorded
from replswitch.asgi import ReplicationMiddleware
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import EngineSwitch, RoutingSession, replicate
from replswitch.testing import ReplicatedPair, SQLitePair


class Shop:
    """A replicated database with asynchronous engines, and an application that uses it.

    Attributes:
        db: its switch.
        session: makes its sessions.
        browser: a visitor of `app`.
    """

    def __init__(self, pair: ReplicatedPair, **options: Any) -> None:
        urls = [f"{each['database']}" for each in (pair.master, *pair.slaves)]
        self.engines = [create_async_engine(f"sqlite+aiosqlite:///{url}") for url in urls]
        master, *slaves = self.engines
        self.db: EngineSwitch = replicate(master, slaves, **options)
        self.session = async_sessionmaker(master, class_=AsyncSession, sync_session_class=RoutingSession)
        self.visitor = Browser(self.within(self.serve))

    def within(self, app: App, **options: Any) -> App:
        return ReplicationMiddleware(app, SECRET, debug_header=True, **options)

    def handling(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> App:
        """An application that does some work in a session, and answers with its result."""

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            async with self.session() as session:
                result = await work(session)
            await respond(send, str(result).encode())

        return self.within(app)

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        async with self.session() as session:
            if scope["method"] == "POST":
                await write(session, int(scope["query_string"].partition(b"=")[2]))
                await session.commit()
                return await respond(send, b"written", status=201)
            return await respond(send, " ".join(map(str, await numbers(session))).encode())


async def numbers(session: AsyncSession) -> list[int]:
    return list(await session.scalars(text("SELECT n FROM wsgi_message ORDER BY n")))


async def write(session: AsyncSession, number: int) -> None:
    await session.execute(text("INSERT INTO wsgi_message VALUES (:n)"), {"n": number})


async def count(session: AsyncSession) -> list[int]:
    """Read the numbers and write the next one, in one transaction."""
    await write(session, (await numbers(session))[-1] + 1)
    found = await numbers(session)
    await session.commit()
    return found


@asynccontextmanager
async def shop_on(pair: ReplicatedPair, **options: Any) -> AsyncIterator[Shop]:
    empty_table(pair)
    shop = Shop(pair, **options)
    try:
        yield shop
    finally:
        for engine in shop.engines:
            await engine.dispose()


def test_m1_the_next_get_sees_the_write(sqlite_pair: SQLitePair) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            sqlite_pair.stop_slave()
            assert (await shop.visitor.asend()).told == "slave; server=" + shop.db.servers.slaves[
                0
            ].name + "; reason=method"
            assert len((await shop.visitor.asend("POST", "n=2")).cookies) == 1
            answer = await shop.visitor.asend()
            assert (answer.body, answer.side, answer.cookies) == (b"1 2", "master", [])
            assert (await Browser(shop.visitor.app).asend()).body == b"1", "the marker reached another visitor"
            sqlite_pair.start_slave()
            sqlite_pair.wait_caught_up()
            answer = await shop.visitor.asend()
            assert (answer.body, answer.side) == (b"1 2", "slave")

    asyncio.run(main())


def test_m1_each_of_many_concurrent_visitors_sees_their_own_write(sqlite_pair: SQLitePair) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            sqlite_pair.stop_slave()

            async def visit(number: int) -> bool:
                browser = Browser(shop.visitor.app)
                await browser.asend("POST", f"n={number}")
                return str(number).encode() in (await browser.asend()).body.split()

            assert all(await asyncio.gather(*map(visit, range(2, 12))))

    asyncio.run(main())


def test_m1_sync_and_async_engines_of_one_database_share_the_marker(sqlite_pair: SQLitePair) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            sqlite_pair.stop_slave()
            master, slave = (
                create_engine(f"sqlite:///{each['database']}") for each in (sqlite_pair.master, *sqlite_pair.slaves)
            )
            replicate(master, [slave])
            session_of = sessionmaker(master, class_=RoutingSession)

            def write_in_a_thread() -> None:
                with session_of.begin() as session:
                    session.execute(text("INSERT INTO wsgi_message VALUES (2)"))

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                if scope["method"] == "POST":
                    await asyncio.to_thread(write_in_a_thread)
                    return await respond(send, b"written")
                return await shop.serve(scope, receive, send)

            browser = Browser(shop.within(app))
            await browser.asend("POST")
            assert (await browser.asend()).body == b"1 2"
            master.dispose()
            slave.dispose()

    asyncio.run(main())


def test_s8_a_write_in_a_get_moves_to_the_master_and_is_marked(
    sqlite_pair: SQLitePair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "replswitch")

    async def work(session: AsyncSession) -> list[int]:
        await write(session, 2)
        await session.commit()
        return await numbers(session)

    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            answer = await Browser(shop.handling(work)).asend()
            assert (answer.body, len(answer.cookies)) == (b"[1, 2]", 1)

    asyncio.run(main())
    assert f"{__file__}:" in caplog.text, "the line of the application is not named"


def test_r5_a_view_counter_runs_again_and_counts_once(sqlite_pair: SQLitePair) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            app = shop.handling(count)
            answer = await Browser(app).asend()
            assert (answer.body, answer.told.endswith("reason=replay")) == (b"[1, 2]", True)
            answer = await Browser(app).asend()
            assert (answer.body, answer.told.endswith("reason=learned")) == (b"[1, 2, 3]", True)

    asyncio.run(main())


def test_m7_a_commit_after_the_headers_is_logged_with_the_line_of_the_application(
    sqlite_pair: SQLitePair, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                async with shop.session.begin() as session:
                    await write(session, 2)
                    await respond(send, b"too early")

            assert (await Browser(shop.within(app)).asend("POST")).cookies == []

    asyncio.run(main())
    (line,) = [each.message for each in caplog.records if "after the response's headers were sent" in each.message]
    assert re.search(rf"{re.escape(__file__)}:\d+ in app\.", line), "the line of the commit is not named"


@pytest.mark.parametrize("what", ["a commit", "a statement in autocommit mode"])
def test_m1_a_commit_that_is_cancelled_counts_as_a_write(sqlite_pair: SQLitePair, what: str) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                master = shop.engines[0]
                if what == "a statement in autocommit mode":
                    master = master.execution_options(isolation_level="AUTOCOMMIT")
                async with master.connect() as connection:
                    insert = connection.execute(text("INSERT INTO wsgi_message VALUES (2)"))
                    if what == "a commit":
                        await insert
                    task = asyncio.ensure_future(connection.commit() if what == "a commit" else insert)
                    await asyncio.sleep(0)  # it has been sent, and not been answered
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    await connection.rollback()
                await respond(send, b"too late", status=503)

            assert len((await Browser(shop.within(app)).asend("POST")).cookies) == 1

    asyncio.run(main())


def test_m1_a_write_in_unrecorded_makes_no_marker(sqlite_pair: SQLitePair) -> None:
    async def work(session: AsyncSession) -> None:
        with unrecorded(), use_master():
            await write(session, 2)
            await session.commit()

    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:
            assert (await Browser(shop.handling(work)).asend()).cookies == []

    asyncio.run(main())


def test_decorators_and_blocks_route_a_part_of_a_request(sqlite_pair: SQLitePair) -> None:
    async def main() -> None:
        async with shop_on(sqlite_pair) as shop:

            async def side() -> str:
                async with shop.session() as session:
                    engine = (await session.connection()).sync_connection.engine  # type: ignore[union-attr]
                    return "slave" if engine in shop.db.slaves else "master"

            async def work(session: AsyncSession) -> list[str]:
                found = [await side(), await use_master(side)()]
                with shop.db.use_master():
                    found.append(await side())
                    found += await asyncio.gather(use_slave(side)(), side())
                return [*found, await side()]

            answer = await Browser(shop.handling(work)).asend()
            assert answer.body == b"['slave', 'master', 'master', 'slave', 'master', 'slave']"

    asyncio.run(main())
