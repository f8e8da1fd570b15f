"""The connections for reads on the master (S10) belong to the process that opened them, also after a fork (S12)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing import Pipe
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tests.asyncio_drivers import OF_SERVERS, PAIRS, address, installed
from tests.eventually import eventually

from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import ReplicatedPair
from replswitch.testing.postgresql import PostgreSQLPair

BOTH = (use_master, use_slave)


def number(pair: ReplicatedPair) -> Any:
    """The query for the server's number of the session."""
    return text("SELECT pg_backend_pid()" if isinstance(pair, PostgreSQLPair) else "SELECT CONNECTION_ID()")


def sessions(pair: Any) -> set[int]:
    """The numbers of all sessions on the master."""
    shown = (
        "pid FROM pg_stat_activity" if isinstance(pair, PostgreSQLPair) else "id FROM information_schema.processlist"
    )
    with closing(pair.connect()) as plain, plain.cursor() as cursor:
        cursor.execute(f"SELECT {shown}")
        return {row[0] for row in cursor.fetchall()}


Work = Callable[[Callable[[set[int]], None]], None]


@contextmanager
def in_child(work: Work) -> Iterator[Any]:
    """Run ``work`` in a forked child. What it hands to its argument arrives here, and it goes on after an answer."""
    ours, theirs = Pipe()

    def hand_over(found: set[int]) -> None:
        theirs.send(found)
        theirs.recv()

    child = os.fork()
    if not child:
        ours.close()
        try:
            work(hand_over)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(child, 0)


def check(pair: ReplicatedPair, before: set[int], work: Work) -> None:
    """Run ``work`` in a child: it hands over its sessions, and then nothing, after it has disposed of its engine."""
    with in_child(work) as child:
        mine = child.recv()
        assert len(mine) == 2
        assert mine <= sessions(pair)
        assert mine.isdisjoint(before)
        child.send(None)
        assert child.recv() == set()
        eventually(lambda: mine.isdisjoint(sessions(pair)))
        assert before <= sessions(pair), "the child has ended sessions of its parent"


@pytest.mark.parametrize("close", [True, False], ids=["close=True", "close=False"])
@pytest.mark.parametrize(
    "driver", ["mariadb", "mysqlclient", "postgresql-psycopg", "postgresql-psycopg2"], indirect=True
)
def test_s12_a_forked_child_that_disposes_of_the_master_engine_ends_only_its_own_sessions(
    make: Callable[..., Any], replicated_pair: ReplicatedPair, close: bool
) -> None:
    shop = make(slaves=0)

    def used() -> set[int]:
        found = set()
        for use in BOTH:
            with use(), shop.Session() as session:
                found.add(session.scalar(number(replicated_pair)))
        return found

    def work(hand_over: Callable[[set[int]], None]) -> None:
        shop.master.dispose(close=close)  # those of the parent
        hand_over(used())
        shop.master.dispose()
        hand_over(set())

    before = used()
    check(replicated_pair, before, work)
    assert used() == before


@pytest.mark.parametrize("driver", OF_SERVERS)
def test_s12_a_forked_child_that_disposes_of_the_async_master_engine_ends_only_its_own_sessions(
    request: pytest.FixtureRequest, driver: str
) -> None:
    pair: ReplicatedPair = request.getfixturevalue(PAIRS[installed(driver)])
    master = create_async_engine(address(pair.master, driver))
    replicate(master)

    async def used() -> set[int]:
        found = set()
        for use in BOTH:
            with use():
                async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                    found.add(await session.scalar(number(pair)))
        return found

    def work(hand_over: Callable[[set[int]], None]) -> None:
        with asyncio.Runner() as runner:
            master.sync_engine.dispose(close=False)
            hand_over(runner.run(used()))
            runner.run(master.dispose())
            hand_over(set())

    loop = asyncio.new_event_loop()
    with closing(loop):
        before = loop.run_until_complete(used())
        check(pair, before, work)
        assert loop.run_until_complete(used()) == before
        loop.run_until_complete(master.dispose())
