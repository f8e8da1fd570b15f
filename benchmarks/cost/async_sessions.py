"""What a read through an AsyncSession with RoutingSession costs, against the same through a stock AsyncSession.

A read is a session of its own and one select, as in a request: `async with Session() as session: await
session.execute(select(…))`; or a further select in a session that has read before. Both sides have the same
driver and the same server: the master in master state, the slave in slave state. Links to slaves of PostgreSQL have a
time-out for answers, so slave state is compared with a stock engine that has the same. The last line of each driver is
a whole GET through the ASGI middleware, compared with a stock read. Needs mariadbd, the servers of PostgreSQL and the
drivers.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from contextvars import copy_context
from itertools import repeat
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from cost.asgi import BODY, SCOPE, START, receive, send
from cost.ratio import Batch, Row, Times, measure, ratio
from cost.sessions import Base, Note
from replswitch.asgi import ReplicationMiddleware
from replswitch.decorators import use_master, use_slave
from replswitch.drivers.postgresql import READ_TIMEOUT
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import MariaDBPair, PostgreSQLPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Session = Callable[[], AsyncSession]

GROUPS = 8
ROUNDS = 20

LIMIT = 1.05
"""The limit for the time of a read, divided by the time through a stock session."""

DRIVERS = {
    "aiomysql": (MariaDBPair, "mysql+aiomysql://{user}:{password}@{host}:{port}/{database}"),
    "asyncmy": (MariaDBPair, "mysql+asyncmy://{user}:{password}@{host}:{port}/{database}"),
    "asyncpg": (PostgreSQLPair, "postgresql+asyncpg://{user}:{password}@{host}:{port}/{dbname}"),
    "psycopg": (PostgreSQLPair, "postgresql+psycopg://{user}:{password}@{host}:{port}/{dbname}"),
}
"""The pair of servers and the form of the URL, by the name of the driver."""

STATEMENT = select(Note.id)


class Timed(psycopg.AsyncConnection[Any]):
    """A connection that waits for an answer as long as links to slaves do."""

    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait."""
        async with asyncio.timeout(READ_TIMEOUT):
            return await super().wait(gen, *args, **options)


TIMED: dict[str, dict[str, Any]] = {
    "asyncpg": {"command_timeout": READ_TIMEOUT},
    "psycopg": {"async_creator_fn": Timed.connect},
}
"""The arguments of a connection with the time-out that links to slaves have, if they have one."""


async def read(session: Session) -> None:
    """Read once, in a session of its own."""
    async with session() as opened:
        (await opened.execute(STATEMENT)).all()


def reads(session: Session, loop: asyncio.AbstractEventLoop, state: Callable[[], Any] = nullcontext) -> Batch:
    """Make a batch of reads, all in one state."""

    async def run(number: int) -> None:
        with state():
            for _ in repeat(None, number):
                await read(session)

    return lambda number: loop.run_until_complete(run(number))


def further(opened: AsyncSession, loop: asyncio.AbstractEventLoop, state: Callable[[], Any] = nullcontext) -> Batch:
    """Make a batch of reads in a session that has read before, all after one instruction."""
    context = copy_context()
    context.run(state().__enter__)

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            (await opened.execute(STATEMENT)).all()

    def batch(number: int) -> None:
        loop.run_until_complete(loop.create_task(run(number), context=context))

    batch(2)
    return batch


def requests(session: Session, loop: asyncio.AbstractEventLoop) -> Batch:
    """Make a batch of GETs with one read through the ASGI middleware."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await read(session)
        await send(START)
        await send(BODY)

    wrapped = ReplicationMiddleware(answer, secret="a secret for the benchmark alone")

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            await wrapped(SCOPE.copy(), receive, send)

    return lambda number: loop.run_until_complete(run(number))


async def fill(url: str) -> None:
    """Make the table, with some rows."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Note), [{"id": number} for number in range(1, 6)])
    await engine.dispose()


def group(runner: asyncio.Runner, driver: str, master: str, slave: str) -> Times:
    """Measure all sides on new connections."""
    loop = runner.get_loop()
    one, another, ours, our_slave = (create_async_engine(url) for url in (master, master, master, slave))
    stock_slave = create_async_engine(slave, connect_args=TIMED.get(driver, {}))
    replicate(ours, [our_slave])
    stock, null, at_slave = (async_sessionmaker(engine) for engine in (one, another, stock_slave))
    routed = async_sessionmaker(ours, sync_session_class=RoutingSession)
    opened = [session() for session in (stock, at_slave, routed, routed)]
    try:
        times = measure(
            {
                "stock": reads(stock, loop),
                "null": reads(null, loop),
                "stock slave": reads(at_slave, loop),
                "no state": reads(routed, loop),
                "master": reads(routed, loop, use_master),
                "slave": reads(routed, loop, use_slave),
                "request": requests(routed, loop),
            },
            ROUNDS,
        )
        plain, of_slave, in_master, in_slave = opened
        return times | measure(
            {
                "further stock": further(plain, loop),
                "further stock slave": further(of_slave, loop),
                "further master": further(in_master, loop, use_master),
                "further slave": further(in_slave, loop, use_slave),
            },
            ROUNDS,
        )
    finally:
        for session in opened:
            runner.run(session.close())
        for engine in (one, another, stock_slave, ours, our_slave):
            runner.run(engine.dispose())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    for kind in (MariaDBPair, PostgreSQLPair):
        with kind() as pair:
            for driver, (its_kind, form) in DRIVERS.items():
                if its_kind is not kind:
                    continue
                master, slave = (form.format(**settings) for settings in (pair.master, pair.slaves[0]))
                times: Times = {}
                with asyncio.Runner() as runner:
                    runner.run(fill(master))
                    pair.wait_caught_up()
                    for _ in range(GROUPS):
                        for name, batches in group(runner, driver, master, slave).items():
                            times.setdefault(name, []).extend(batches)
                yield ratio(f"{driver}: a stock AsyncSession / another stock one", times, "null", "stock")
                yield ratio("  with RoutingSession / stock, no state", times, "no state", "stock", limit=LIMIT)
                yield ratio("  master state", times, "master", "stock", limit=LIMIT)
                yield ratio("  slave state", times, "slave", "stock slave", limit=LIMIT)
                yield ratio("  further reads, master state", times, "further master", "further stock", limit=LIMIT)
                yield ratio("  further reads, slave state", times, "further slave", "further stock slave", limit=LIMIT)
                yield ratio("  in a GET, with the ASGI middleware", times, "request", "stock slave")
