"""AsyncSession, on drivers whose connections SQLAlchemy opens: routed, read-only slaves, positions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, String, event, insert, select, text
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool
from tests.asyncio_drivers import PAIRS, address, installed

from replswitch import MASTER, SLAVE, SlaveWriteError, unrecorded
from replswitch.decorators import use_master, use_slave
from replswitch.positions.sqlite import SQLitePosition
from replswitch.request.marker import Marker
from replswitch.sqlalchemy import EngineSwitch, RoutingSession, replicate
from replswitch.state import stack
from replswitch.testing import MariaDBPair, ReplicatedPair

# Before 2.0.38, SQLAlchemy has no pool for aiosqlite by default.
ONE_CONNECTION: dict[str, Any] = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1}


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(100))


class Shop:
    """A replicated database and what ran on its servers."""

    def __init__(self, master: AsyncEngine, slave: AsyncEngine, **options: Any) -> None:
        self.ran: list[str] = []
        for engine, side in ((master, MASTER), (slave, SLAVE)):
            self._listen(engine, side)
        self.db: EngineSwitch = replicate(master, [slave], **options)
        self.master = master
        self.session = async_sessionmaker(master, class_=AsyncSession, sync_session_class=RoutingSession)

    def _listen(self, engine: AsyncEngine, side: str) -> None:
        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def run(*_: Any) -> None:
            self.ran.append(side)

    def took(self) -> list[str]:
        ran, self.ran[:] = list(self.ran), []
        return ran


Make = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture(params=PAIRS)
def driver(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's name for the driver; the test runs with each."""
    return installed(request.param)


@pytest.fixture
def pair(request: pytest.FixtureRequest, driver: str) -> ReplicatedPair:
    """The pair of servers for the driver."""
    found: ReplicatedPair = request.getfixturevalue(PAIRS[driver])
    return found


@pytest.fixture
def shop_on(pair: ReplicatedPair, driver: str) -> Make:
    """Makes the tables, and a shop on the pair; ``of_master`` are arguments of its engine."""

    @asynccontextmanager
    async def make(of_master: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Shop]:
        master = create_async_engine(address(pair.master, driver), **of_master or {})
        slave = create_async_engine(address(pair.slaves[0], driver))
        async with master.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        await master.dispose()
        pair.wait_caught_up()
        shop = Shop(master, slave, **options)
        try:
            yield shop
        finally:
            for engine in (master, slave):
                await engine.dispose()

    return make


def write_by_cursor(connection: Connection) -> None:
    cursor = connection.connection.cursor()
    cursor.execute("INSERT INTO note (body) VALUES ('hello')")
    cursor.close()


async def bodies(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Note.body)))


def test_async_sessions_read_in_the_current_state(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop:
            async with shop.session() as session:
                await bodies(session)
            with shop.db.use_slave():
                async with shop.session() as session:
                    await bodies(session)
                    assert (await session.connection()).sync_connection is not None
                    assert isinstance(session.sync_session, RoutingSession)
            return shop.took()

    assert asyncio.run(main()) == [MASTER, SLAVE]


def test_f1_get_bind_of_an_async_session_takes_no_connection(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop:
            with shop.db.use_slave() as frame:
                # What a scope must see of another database is not asked of this one's slaves.
                frame.scope.adopt_marker(Marker(positions={"other": SQLitePosition(7)}), 10)
                async with shop.session() as session:
                    assert session.get_bind() is shop.db.slaves[0]
                    await bodies(session)
            return shop.took()

    assert asyncio.run(main()) == [SLAVE]


def test_get_bind_of_an_async_session_sends_no_query(pair: ReplicatedPair, shop_on: Make) -> None:
    """It is no coroutine, so it cannot wait for an answer. Libraries call it to find out the dialect."""

    async def main() -> list[str]:
        async with shop_on() as shop:
            with shop.db.use_master() as frame:
                async with shop.session() as session:
                    session.add(Note(body="hello"))
                    await session.commit()
                wrote = frame.scope.all_written()
                assert wrote is not None
            pair.wait_caught_up()
            shop.took()
            with shop.db.use_slave() as frame:
                frame.scope.adopt_marker(wrote, 10)
                async with shop.session() as session:
                    assert session.get_bind() is shop.db.master
                    assert await bodies(session) == ["hello"]
            return shop.took()

    assert asyncio.run(main()) == [SLAVE]


def test_s3_async_tasks_have_their_own_states(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop:

            async def work(side: str) -> str:
                with use_slave() if side == SLAVE else use_master():
                    async with shop.session() as session:
                        await asyncio.sleep(0)
                        await bodies(session)
                        engine = (await session.connection()).sync_connection.engine  # type: ignore[union-attr]
                        return SLAVE if engine is shop.db.slaves[0] else MASTER

            return list(await asyncio.gather(*map(work, [MASTER, SLAVE] * 5)))

    assert asyncio.run(main()) == [MASTER, SLAVE] * 5


def test_p1_an_async_commit_has_a_position_and_a_slave_that_has_reached_it_serves(
    pair: ReplicatedPair, shop_on: Make
) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            pair.stop_slave()
            with use_master():
                async with shop.session() as session:
                    session.add(Note(body="hello"))
                    await session.commit()
                    with shop.db.use_slave():
                        assert await bodies(session) == ["hello"]
                assert set(shop.took()) == {MASTER}
                frame = stack()
                assert frame is not None
                wrote = frame.scope.all_written()
                assert wrote is not None
                assert (wrote.written_at, len(wrote.positions)) == (None, 1)
                pair.start_slave()
                pair.wait_caught_up()
            with shop.db.use_slave() as later:
                later.scope.adopt_marker(wrote, 10)
                async with shop.session() as session:
                    assert await bodies(session) == ["hello"]
            assert shop.took() == [SLAVE]

    asyncio.run(main())


def test_m1_an_async_commit_that_has_written_nothing_makes_no_marker(pair: ReplicatedPair, shop_on: Make) -> None:
    """Also on a connection on which an earlier request has written."""

    async def main() -> None:
        async with shop_on(ONE_CONNECTION) as shop:
            for is_write in (False, True, False):
                with shop.db.use_master() as frame:
                    async with shop.session() as session:
                        if is_write:
                            session.add(Note(body="hello"))
                        await bodies(session)
                        await session.commit()
                    assert (frame.scope.all_written() is not None) is is_write

    asyncio.run(main())


def test_m1_an_async_write_in_unrecorded_makes_no_marker_later(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> None:
        async with shop_on(ONE_CONNECTION) as shop:
            with unrecorded(), use_master():
                async with shop.session() as session:
                    session.add(Note(body="hello"))
                    await session.commit()
            with shop.db.use_master() as frame:
                async with shop.session() as session:
                    await bodies(session)
                    await session.commit()
                assert frame.scope.all_written() is None

    asyncio.run(main())


def test_m1_an_async_rollback_is_not_recorded(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            with use_master():
                async with shop.session() as session:
                    session.add(Note(body="hello"))
                    await session.flush()
                frame = stack()
                assert frame is not None
                assert frame.scope.all_written() is None

    asyncio.run(main())


BY_CURSOR = [
    *("its cursor", "its cursor with execution options"),
    "its cursor after a statement with execution options",
]


@pytest.mark.parametrize(
    "by",
    ["engine", "execution options", *BY_CURSOR],
    ids=lambda by: str(by).replace("its cursor", "a cursor of the driver"),
)
def test_m1_an_async_write_in_autocommit_mode_is_recorded(pair: ReplicatedPair, shop_on: Make, by: str) -> None:
    async def main() -> None:
        level = {} if "execution options" in by else {"isolation_level": "AUTOCOMMIT"}
        async with shop_on(level) as shop:
            pair.stop_slave()
            master = shop.master
            if "execution options" in by:
                master = master.execution_options(isolation_level="AUTOCOMMIT")
            with use_master():
                async with AsyncExitStack() as still_open:
                    connection = await still_open.enter_async_context(master.connect())
                    if "after a statement" in by:
                        await connection.execute(text("SELECT 1"))
                    if "its cursor" in by:
                        await connection.run_sync(write_by_cursor)
                        await still_open.aclose()
                    else:
                        await connection.execute(insert(Note).values(body="hello"))
                    with shop.db.use_slave():
                        async with shop.session() as session:
                            assert await bodies(session) == ["hello"]
                frame = stack()
                assert frame is not None
                assert frame.scope.all_written() is not None

    asyncio.run(main())
    pair.start_slave()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_m1_an_async_write_by_the_cursor_is_recorded_if_its_connection_commits_it(shop_on: Make, end: str) -> None:
    def run(connection: Connection) -> None:
        write_by_cursor(connection)
        getattr(connection.connection, end)()

    async def main() -> None:
        async with shop_on(ONE_CONNECTION) as shop:
            for _ in range(2):
                with shop.db.use_master() as frame:
                    async with shop.master.connect() as connection:
                        await connection.run_sync(run)
                    assert (frame.scope.all_written() is not None) is (end == "commit")

    asyncio.run(main())


def test_m1_a_write_by_the_cursor_of_an_async_session_in_autocommit_mode_is_recorded(
    pair: ReplicatedPair, shop_on: Make
) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            with use_master():
                async with shop.session() as session:
                    level = {"isolation_level": "AUTOCOMMIT"}
                    connection = await session.connection(execution_options=level)
                    await connection.run_sync(write_by_cursor)
                frame = stack()
                assert frame is not None
                assert frame.scope.all_written() is not None

    asyncio.run(main())


def test_m1_what_an_async_statement_wrote_in_autocommit_mode_before_its_error_is_recorded(
    pair: ReplicatedPair, shop_on: Make
) -> None:
    async def main() -> None:
        async with shop_on() as shop:
            master = shop.master.execution_options(isolation_level="AUTOCOMMIT")
            with use_master():
                async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                    with pytest.raises(IntegrityError):
                        await session.execute(
                            text("INSERT INTO note (id, body) VALUES (:id, 'hello')"), [{"id": 1}, {"id": 1}]
                        )
                frame = stack()
                assert frame is not None
                is_recorded = frame.scope.all_written() is not None
                async with shop.session() as session:
                    assert is_recorded or await bodies(session) == []

    asyncio.run(main())


def test_s8_async_writes_in_slave_state_move_to_the_master(shop_on: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "replswitch")

    async def main() -> list[str]:
        async with shop_on() as shop:
            with use_slave():
                async with shop.session() as session:
                    await session.execute(insert(Note).values(body="one"))
                    session.add(Note(body="two"))
                    await session.commit()
                    assert await bodies(session) == ["one", "two"]
            with use_slave():
                async with shop.session() as session:
                    await bodies(session)
                    with pytest.raises(SlaveWriteError) as caught:
                        await session.execute(text("DELETE FROM note"))
                    assert caught.value.place.startswith(f"{__file__}:")  # found outside the greenlet
                    assert caught.value.place.endswith(" in main")
                    await session.rollback()
            return shop.took()

    assert asyncio.run(main())[:2] == [SLAVE, MASTER]
    assert "Call use_master() before the write." in caplog.text


def test_f1_async_reads_of_a_slave_that_is_down_run_on_the_master(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop:
            pair.kill("slave")
            for _ in range(2):
                with use_slave():
                    async with shop.session() as session:
                        assert await bodies(session) == []
            return shop.took()

    assert asyncio.run(main()) == [MASTER, MASTER]


def test_async_scoped_sessions_and_streams_read_from_the_slave(pair: ReplicatedPair, shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop:
            session = async_scoped_session(shop.session, scopefunc=asyncio.current_task)
            session.add_all([Note(body="one"), Note(body="two")])
            await session.commit()
            await session.remove()
            pair.wait_caught_up()
            shop.took()
            with use_slave():
                result = await session.stream_scalars(select(Note.body).order_by(Note.id))
                assert [body async for body in result] == ["one", "two"]
                await session.remove()
            return shop.took()

    assert asyncio.run(main()) == [SLAVE]


def test_s7_async_connections_to_the_slave_are_read_only(mariadb_pair: MariaDBPair) -> None:
    """Though the server itself would let them write: without a slave, it is the master's."""

    async def main() -> None:
        master, same = (create_async_engine(address(mariadb_pair.master, "aiomysql")) for _ in range(2))
        replicate(master, [same])
        async with same.connect() as connection:
            with pytest.raises(Exception, match="READ ONLY"):
                await connection.execute(text("CREATE TABLE other (id INTEGER)"))
        for engine in (master, same):
            await engine.dispose()

    asyncio.run(main())


def test_s5_without_a_rollback_no_server_serves_an_async_session_whose_connection_is_invalid(shop_on: Make) -> None:
    async def main() -> list[str]:
        async with shop_on() as shop, shop.session() as session:
            with use_slave():
                with use_master():
                    await bodies(session)
                    await (await session.connection()).invalidate()
                for _ in range(2):
                    with pytest.raises(PendingRollbackError):
                        await bodies(session)
                await session.rollback()
                await bodies(session)
            return shop.took()

    assert len(asyncio.run(main())) == 2
