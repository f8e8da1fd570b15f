"""No statement makes an asyncio driver's link for slave state writable (S7), or moves away from what it set (S8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.asyncio_drivers import PAIRS, address, installed
from tests.test_core.test_read_only_links import PROCEDURES, STATEMENTS
from tests.test_sqlalchemy.conftest import address as address_of

from replswitch import SlaveWriteError
from replswitch.decorators import use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import ReplicatedPair

DRIVERS = [name for name, pair in PAIRS.items() if pair == "mariadb_pair"]
MULTI_STATEMENTS = 1 << 16
WRITE = text("INSERT INTO message (body) VALUES ('new')")


@pytest.fixture(params=["mariadb_pair", "mysql_pair"])
def pair(request: pytest.FixtureRequest, empty: Callable[[str], None]) -> ReplicatedPair:
    pair: ReplicatedPair = request.getfixturevalue(request.param)
    empty(address_of(pair.master, pair.driver))
    with closing(pair.connect("master")) as master, master.cursor() as cursor:
        for name, body in PROCEDURES.items():
            cursor.execute(f"DROP PROCEDURE IF EXISTS {name}")
            code = body.format(variable(pair)).replace("(id) VALUES (1)", "(body) VALUES ('new')")
            cursor.execute(f"CREATE PROCEDURE {name}() BEGIN {code} END")
    return pair


def variable(pair: ReplicatedPair) -> str:
    """The variable of a session's read-only mode."""
    return "tx_read_only" if "MariaDB" in type(pair).__name__ else "transaction_read_only"


@asynccontextmanager
async def alone(pair: ReplicatedPair, driver: str) -> AsyncIterator[tuple[Any, list[str]]]:
    """A function that makes sessions on a master without slaves, and the writes on its link for slave state (S10)."""
    flags = {"client_flag": MULTI_STATEMENTS}
    engine = create_async_engine(address(pair.master, installed(driver)), connect_args=flags)
    written: list[str] = []

    def ran(connection: Any, cursor: Any, sql: str, *about: Any) -> None:
        if "INSERT" in sql:
            written.append(sql)

    switch = replicate(engine)
    event.listen(switch.slaves[0], "after_cursor_execute", ran)
    try:
        yield lambda: AsyncSession(engine, sync_session_class=RoutingSession), written
    finally:
        await engine.dispose()
        await AsyncEngine(switch.slaves[0]).dispose()


def count(pair: ReplicatedPair) -> int:
    with closing(pair.connect("master")) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("driver", DRIVERS)
def test_s7_after_a_statement_that_makes_its_async_link_writable_no_write_runs_on_the_slave(
    pair: ReplicatedPair, driver: str
) -> None:
    async def run(session: AsyncSession, sql: str) -> str:
        try:
            await session.execute(text(sql.replace(":=", "\\:=")))
            await session.execute(WRITE)
            await session.commit()
        except SlaveWriteError:
            return "refused"
        except InternalError:
            return "noticed"
        return "moved"

    async def main() -> dict[str, str]:
        found = {}
        async with alone(pair, driver) as (session, written):
            for name, statement in STATEMENTS.items():
                rows = count(pair)
                with use_slave():
                    async with session() as first:
                        found[name] = await run(first, statement.format(variable(pair)))
                    async with session() as second:  # over the same link, if it was not closed
                        await second.execute(text("SELECT 'read write'"))
                if written:
                    found[name] += f" {written.pop()}"
                assert count(pair) == rows + (found[name] == "moved"), name
        return found

    found = asyncio.run(main())
    hidden = {"SET as the second statement", "CALL with SET", "CALL with SET TRANSACTION"}
    assert {name: outcome for name, outcome in found.items() if name not in hidden} == dict.fromkeys(
        STATEMENTS.keys() - hidden, "moved"
    )
    assert {found[name] for name in hidden} <= {"moved", "refused"}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("procedure", ["let_write_and_write", "begin_and_write"])
def test_s7_a_procedure_that_makes_its_async_link_writable_and_writes_raises_an_error(
    pair: ReplicatedPair, driver: str, procedure: str
) -> None:
    async def main() -> None:
        async with alone(pair, driver) as (session, _):
            with use_slave():
                async with session() as first:
                    with pytest.raises(DBAPIError, match="Run the statement in master state"):
                        await first.execute(text(f"CALL {procedure}()"))
                    await first.rollback()
                async with session() as second:
                    await second.execute(text("CALL look()"))
                    assert (await second.execute(text("SELECT 1"))).scalar() == 1

    asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_s8_a_write_after_a_change_of_its_async_session_raises(pair: ReplicatedPair, driver: str) -> None:
    async def main() -> None:
        async with alone(pair, driver) as (session, _):
            for change in ("SET @who = 'me'", "SELECT @who \\:= 'me'", "SELECT 'me' INTO @who"):
                with use_slave():
                    async with session() as first:
                        await first.execute(text(change))
                        with pytest.raises(SlaveWriteError, match="session"):
                            await first.execute(text("INSERT INTO message (body) VALUES (@who)"))
                        await first.rollback()

    asyncio.run(main())
    assert count(pair) == 0


@pytest.mark.parametrize("pair", ["mariadb_pair"], indirect=True)
def test_s7_no_prepared_statement_of_asyncmy_makes_its_link_writable(pair: ReplicatedPair) -> None:
    async def main() -> None:
        async with alone(pair, "asyncmy") as (session, _):
            with use_slave():
                async with session() as first:
                    raw: Any = (await (await first.connection()).get_raw_connection()).driver_connection
                    with pytest.raises(Exception, match="does not let a statement make a slave's connection writable"):
                        await raw.prepare("SET SESSION TRANSACTION READ WRITE")
                    call = await raw.prepare("CALL let_write()")
                    for _ in range(2):
                        await call.execute()
                        async with raw.cursor() as cursor:
                            with pytest.raises(Exception, match=r"(?i)read.only"):
                                await cursor.execute("INSERT INTO message (body) VALUES ('new')")

    asyncio.run(main())
    assert count(pair) == 0
