"""`assert_reads_on` with connect(), sessions of SQLAlchemy and Flask: what passes, what fails, and the message."""

from __future__ import annotations

import asyncio
import inspect
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

import replswitch
from flask_replswitch import ReplSwitch
from replswitch.connect.cursor import Cursor
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import PostgreSQLPair, SQLitePair, assert_reads_on
from replswitch.watching import Statement, watch

if TYPE_CHECKING:
    from replswitch import Connection

READ = "SELECT body FROM message"


def fails(match: str) -> pytest.RaisesExc[AssertionError]:
    """The assertion must fail with a message like this."""
    return pytest.raises(AssertionError, match=match)


@pytest.fixture
def pair(sqlite_pair: SQLitePair) -> SQLitePair:
    """A pair whose servers have an empty table of messages."""
    with replswitch.connect(sqlite_pair.master, driver="sqlite3") as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS message")
        cursor.execute("CREATE TABLE message (body TEXT)")
    sqlite_pair.wait_caught_up()
    return sqlite_pair


@pytest.fixture
def db(pair: SQLitePair) -> Iterator[Connection]:
    with replswitch.connect(pair.master, pair.slaves, driver="sqlite3", name="shop") as made:
        yield made


def read(db: Connection) -> None:
    db.cursor().execute(READ).fetchall()


def test_assert_reads_on_passes_if_its_block_reads_on_the_expected_side(db: Connection) -> None:
    with assert_reads_on("slave") as reads, db.use_slave():
        read(db)
    assert [each.statement[1:4] for each in reads.right] == [("shop", "slave", db.servers.slaves[0].name)]
    with assert_reads_on("master", "shop"):
        read(db)


def test_assert_reads_on_keeps_a_cursor_method_that_another_tool_has_replaced(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, seen = Cursor.execute, []

    def replaced(cursor: Cursor, sql: str, args: Any = None) -> Any:
        seen.append(sql)
        return execute(cursor, sql, args)

    monkeypatch.setattr(Cursor, "execute", replaced)
    with assert_reads_on("master"):
        read(db)
    read(db)
    assert seen == [READ, READ]


def test_the_message_lists_each_wrong_read_with_its_server_its_reason_and_the_line(db: Connection) -> None:
    with fails("2 reads") as raised, assert_reads_on("slave"):
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]  # CPython has it
        db.cursor().execute("SELECT 1\n  FROM message")
        with db.use_slave():
            read(db)
        with db.use_master():
            read(db)
    message = str(raised.value)
    name = re.escape(db.servers.master.name)
    place = rf"at {re.escape(__file__)}:{line} in test_the_message_lists\w+\n"
    first = rf"1\. master {name}, reason default, database shop\n    SELECT 1 FROM message\n    {place}"
    second = (
        rf"2\. master {name}, reason use_master, database shop\n    {READ}\n    at {re.escape(__file__)}:\d+ in read"
    )
    assert re.fullmatch(rf"2 reads in the block did not run on a slave:\n{first}{second}", message), message


def test_assert_reads_on_master_fails_if_its_block_reads_on_a_slave(db: Connection) -> None:
    with (
        fails("1 read in the block did not run on the master"),
        assert_reads_on("master"),
        db.use_slave(),
    ):
        read(db)


def test_a_master_read_after_a_moved_write_fails_with_the_reason_moved_write(db: Connection) -> None:
    with fails("reason moved-write"), assert_reads_on("slave"), db.use_slave():
        db.cursor().execute("INSERT INTO message VALUES ('new')")
        read(db)


def test_a_write_on_the_master_passes_in_a_block_that_expects_slave_reads(db: Connection) -> None:
    with assert_reads_on("slave") as reads:
        db.cursor().execute("INSERT INTO message SELECT 'a' RETURNING body")
        db.cursor().executemany("INSERT INTO message VALUES (?)", [("b",), ("c",)])
        with replswitch.resume(""), db.use_slave():
            read(db)
    assert (len(reads.right), reads.wrong) == (1, [])


@pytest.mark.parametrize(
    ("sql", "is_read"),
    [
        ("select 1", True),
        ("/* page */ -- 1\n (SELECT 1) UNION (SELECT 2)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("SELECT 'for update' FROM message", True),
        ('SELECT "update" FROM message', True),
        ("SELECT * FROM message FOR UPDATE", False),
        ("SELECT * FROM message LOCK IN SHARE MODE", False),
        ("SELECT * FROM message FOR NO KEY UPDATE SKIP LOCKED", False),
        ("WITH a AS (DELETE FROM message RETURNING body) SELECT * FROM a", False),
        ("INSERT INTO message VALUES (1) RETURNING body", False),
        ("SET NAMES utf8", False),
        ("", False),
    ],
)
def test_a_statement_is_taken_as_a_read_by_its_text(sql: str, is_read: bool) -> None:
    assert Statement(sql, "shop", "master", "m", "default").is_read is is_read


def test_assert_reads_on_fails_if_its_block_reads_nothing(db: Connection) -> None:
    with (
        fails("expected to read on a slave, but no read was seen"),
        assert_reads_on("slave"),
    ):
        pass
    with (
        fails(r"no read of the database 'orders' was seen in it\. It has read from: shop\."),
        assert_reads_on("master", "orders"),
    ):
        read(db)


def test_assert_reads_on_can_check_one_database_only(db: Connection, pair: SQLitePair) -> None:
    with replswitch.connect(pair.master, pair.slaves, driver="sqlite3", name="orders") as orders:
        with assert_reads_on("slave", "shop"), assert_reads_on("master", "orders"):
            read(orders)
            with db.use_slave():
                read(db)
        with fails("database orders"), assert_reads_on("slave"):
            read(orders)


def test_an_error_in_a_block_of_assert_reads_on_is_raised_unchanged(db: Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nothing"), assert_reads_on("slave"):
        db.cursor().execute("SELECT nothing")


def test_a_wrong_name_of_a_side_is_refused() -> None:
    wrong: Any = "replica"
    with pytest.raises(replswitch.ConfigurationError, match="'replica'"), assert_reads_on(wrong):
        pass


def test_assert_reads_on_checks_reads_in_other_threads(db: Connection) -> None:
    thread = threading.Thread(target=read, args=(db,))
    with fails("reason default"), assert_reads_on("slave"):
        thread.start()
        thread.join()


def test_assert_reads_on_checks_streamed_reads(postgresql_pair: PostgreSQLPair) -> None:
    pair = postgresql_pair
    with replswitch.connect(pair.master, pair.slaves, driver="psycopg") as db:

        def streamed() -> None:
            with db.cursor() as cursor:
                assert list(cursor.stream("SELECT 1")) == [(1,)]

        with assert_reads_on("slave") as reads, db.use_slave():
            streamed()
        assert [each.statement.sql for each in reads.right] == ["SELECT 1"]
        with fails("reason default"), assert_reads_on("slave"):
            streamed()


def test_after_a_block_of_assert_reads_on_cursors_are_not_watched(db: Connection) -> None:
    before = dict(vars(Cursor))
    with fails("no read was seen"), assert_reads_on("slave"):
        assert vars(Cursor)["execute"] is not before["execute"]
    assert dict(vars(Cursor)) == before
    seen: list[Statement] = []
    with watch(seen.append):
        with assert_reads_on("master"):
            read(db)
        read(db)
    read(db)
    assert len(seen) == 2


class Shop:
    """Engines of a pair, with their sessions."""

    def __init__(self, pair: SQLitePair, make: Callable[[str], Any], scheme: str) -> None:
        self.engines = [make(f"{scheme}:///{each['database']}") for each in (pair.master, *pair.slaves)]
        self.db = replicate(self.engines[0], self.engines[1:], name="shop")


def test_assert_reads_on_checks_sessions_of_sqlalchemy(pair: SQLitePair) -> None:
    shop = Shop(pair, create_engine, "sqlite")
    session_of = sessionmaker(shop.engines[0], class_=RoutingSession)

    def read_in_session() -> None:
        with session_of() as session:
            session.execute(text(READ)).all()

    with assert_reads_on("slave", "shop"), shop.db.use_slave():
        read_in_session()
    with fails(r"reason default, database shop\n.*\n    at \S+test_reads.py:\d+ in read_in"), assert_reads_on("slave"):
        read_in_session()
    with assert_reads_on("master"), shop.engines[0].connect() as connection:
        connection.execute(text(READ))
    with fails("reason engine"), assert_reads_on("master"), shop.engines[1].connect() as connection:
        connection.execute(text(READ))
    read_in_session()
    for engine in (*shop.engines, *shop.db.slaves):
        engine.dispose()


def test_assert_reads_on_does_not_check_engines_without_replication(pair: SQLitePair) -> None:
    engine: Engine = create_engine(f"sqlite:///{pair.master['database']}")
    with (
        fails("no read was seen"),
        assert_reads_on("master"),
        engine.connect() as connection,
    ):
        connection.execute(text(READ))
    engine.dispose()


def test_assert_reads_on_checks_async_sessions_of_sqlalchemy(pair: SQLitePair) -> None:
    async def run() -> None:
        shop = Shop(pair, create_async_engine, "sqlite+aiosqlite")
        with assert_reads_on("slave"), shop.db.use_slave():
            async with AsyncSession(shop.engines[0], sync_session_class=RoutingSession) as session:
                await session.execute(text(READ))
        with fails(r"reason use_master.*\n.*\n    at \S+test_reads.py:\d+ in run"), assert_reads_on("slave"):
            async with AsyncSession(shop.engines[0], sync_session_class=RoutingSession) as session:
                with shop.db.use_master():
                    await session.execute(text(READ))
        for engine in shop.engines:
            await engine.dispose()

    asyncio.run(run())


def test_assert_reads_on_checks_requests_to_flask(db: Connection) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="a long random string of the tests", TESTING=True)
    ReplSwitch(app)

    @app.route("/", methods=["GET", "POST"])
    def board() -> str:
        read(db)
        return "ok"

    with assert_reads_on("slave"):
        app.test_client().get("/")
    with fails(r"reason method.*\n.*\n    at \S+test_reads.py:\d+ in read"), assert_reads_on("slave"):
        app.test_client().post("/")
