"""Commits without an event of SQLAlchemy count at once, even if their connection stays open after the response (M1)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import IntegrityError
from tests.visits import post_and_read
from webob import Request

import replswitch
from replswitch import carry, resume
from replswitch.decorators import use_master
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import ReplicatedPair
from replswitch.testing.servers import ServerPair
from replswitch.wsgi import ReplicationMiddleware

INSERT = text("INSERT INTO message (body) VALUES ('hello')")

Work = Callable[[Any, ExitStack], None]


def in_a_raw_connection(shop: Any, kept: ExitStack, *, detach: bool = False) -> None:
    raw = shop.master.raw_connection()
    kept.callback(raw.close)
    if detach:
        raw.detach()
    cursor = raw.cursor()
    cursor.execute(INSERT.text)
    raw.commit()


def in_a_detached_connection(shop: Any, kept: ExitStack) -> None:
    in_a_raw_connection(shop, kept, detach=True)


def by_a_statement(shop: Any, kept: ExitStack) -> None:
    session = kept.enter_context(shop.Session())
    session.execute(INSERT)
    session.execute(text("COMMIT"))


def in_a_connection(shop: Any, kept: ExitStack) -> None:
    connection = kept.enter_context(shop.master.connect())
    connection.execute(INSERT)
    connection.commit()


def in_a_connection_that_is_used_further(shop: Any, kept: ExitStack) -> None:
    in_a_connection(shop, kept)
    connection = kept.enter_context(shop.master.connect())
    connection.execute(INSERT)
    connection.commit()
    connection.execute(select(func.count(shop.Message.id)))


def in_autocommit(shop: Any, kept: ExitStack) -> None:
    connection = kept.enter_context(shop.master.execution_options(isolation_level="AUTOCOMMIT").connect())
    connection.execute(INSERT)


def in_autocommit_with_the_cursor_of_the_driver(shop: Any, kept: ExitStack) -> None:
    connection = kept.enter_context(shop.master.execution_options(isolation_level="AUTOCOMMIT").connect())
    connection.connection.cursor().execute(INSERT.text)


def in_a_thread_with_the_context(shop: Any, kept: ExitStack) -> None:
    context = copy_context()
    thread = threading.Thread(target=lambda: context.run(in_a_connection, shop, kept))
    thread.start()
    thread.join()


def in_a_thread_without_the_context(shop: Any, kept: ExitStack) -> None:
    thread = threading.Thread(target=in_a_connection, args=(shop, kept))
    thread.start()
    thread.join()


def by_a_procedure(shop: Any, kept: ExitStack) -> None:
    session = kept.enter_context(shop.Session())
    session.execute(text("CALL write_and_commit()"))


def by_a_definition(shop: Any, kept: ExitStack) -> None:
    session = kept.enter_context(shop.Session())
    session.execute(INSERT)
    session.execute(text("DROP TABLE IF EXISTS nothing_of_that_name"))


def without_transactions(shop: Any, kept: ExitStack) -> None:
    session = kept.enter_context(shop.Session())
    session.execute(text("INSERT INTO message_log (body) VALUES ('hello')"))


EVERYWHERE: list[Work] = [
    in_a_raw_connection,
    in_a_detached_connection,
    in_a_connection,
    in_a_connection_that_is_used_further,
    in_autocommit,
    in_a_thread_with_the_context,
    in_a_thread_without_the_context,
]

ON_SERVERS: list[Work] = [
    *EVERYWHERE,
    in_autocommit_with_the_cursor_of_the_driver,
    by_a_statement,
    by_a_procedure,
    by_a_definition,
    without_transactions,
]


def check(shop: Any, pair: ReplicatedPair, work: Work, table: str = "message", *, own_read: bool = False) -> int:
    """Send a POST that does some work, and check what its visitor sees. Return the marker's lifetime in seconds."""
    count = text(f"SELECT COUNT(*) FROM {table}")

    def number() -> int:
        with shop.Session() as session:
            return int(session.scalar(count))

    cookie = post_and_read(pair, lambda kept: work(shop, kept), number, own_read=own_read)
    return int(cookie.partition("Max-Age=")[2].partition(";")[0])


class TestOnServers:
    @pytest.fixture(params=["pymysql", "mysqldb"], ids=["pymysql", "mysqlclient"])
    def driver(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(autouse=True)
    def _prepared(self, replicated_pair: ReplicatedPair, shop: Any) -> None:
        assert isinstance(replicated_pair, ServerPair)
        with replicated_pair.connect() as plain, plain.cursor() as cursor:
            cursor.execute("DROP PROCEDURE IF EXISTS write_and_commit")
            cursor.execute(
                "CREATE PROCEDURE write_and_commit() BEGIN INSERT INTO message (body) VALUES ('hello'); COMMIT; END"
            )
            cursor.execute("DROP TABLE IF EXISTS message_log")
            cursor.execute("CREATE TABLE message_log (body VARCHAR(100)) ENGINE = MyISAM")
        replicated_pair.wait_caught_up()

    @pytest.mark.parametrize("own_read", [False, True], ids=["the request only writes", "the request also reads"])
    @pytest.mark.parametrize("work", ON_SERVERS)
    def test_m1_a_commit_is_recorded_as_soon_as_it_has_happened(
        self, shop: Any, replicated_pair: ReplicatedPair, driver: str, work: Work, own_read: bool
    ) -> None:
        table = "message_log" if work is without_transactions else "message"
        holds = check(shop, replicated_pair, work, table, own_read=own_read)
        # mysqlclient can ask for the position only in the thread that uses the connection.
        assert holds == (10 if driver == "mysqldb" and work is in_a_thread_with_the_context else 3600)


class TestOnFiles:
    @pytest.fixture
    def driver(self) -> str:
        return "pysqlite"

    @pytest.mark.parametrize("work", EVERYWHERE)
    def test_m1_a_commit_is_recorded_as_soon_as_it_has_happened(
        self, shop: Any, replicated_pair: ReplicatedPair, work: Work
    ) -> None:
        assert check(shop, replicated_pair, work) == 3600


def with_options(engine: Engine) -> Engine:
    return engine.execution_options(colour="red")


def with_its_pool_and_dialect(engine: Engine) -> Engine:
    return Engine(engine.pool, engine.dialect, engine.url)


@pytest.mark.parametrize("is_in_use", [False, True], ids=["unused", "with idle connections"])
@pytest.mark.parametrize("copy", [with_options, with_its_pool_and_dialect])
def test_m1_a_commit_of_an_engine_that_was_copied_before_replicate_counts(
    urls: list[str], copy: Callable[[Engine], Engine], is_in_use: bool
) -> None:
    master, slave = map(create_engine, urls)
    copied = copy(master)
    if is_in_use:
        copied.connect().close()
    replicate(master, [slave])
    for options in ({"isolation_level": "AUTOCOMMIT"}, {}):
        with resume(""), use_master():
            with copied.connect().execution_options(**options) as connection, connection.begin():
                connection.execute(INSERT)
            assert carry() != ""
    for each in (copied, master, slave):
        each.dispose()


def test_m1_a_session_that_only_reads_makes_no_marker(shop: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = shop.Session()
        session.scalar(select(func.count(shop.Message.id)))
        session.commit()
        session.scalar(select(func.count(shop.Message.id)))
        kept.enter_context(session)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    with ExitStack() as kept:
        wrapped = ReplicationMiddleware(application, secret="of the tests")
        assert "Set-Cookie" not in Request.blank("/", method="POST").get_response(wrapped).headers


def test_m1_a_commit_in_an_unrecorded_block_makes_no_marker(shop: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with replswitch.unrecorded():
            in_a_raw_connection(shop, kept)
            in_a_connection(shop, kept)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    with ExitStack() as kept:
        wrapped = ReplicationMiddleware(application, secret="of the tests")
        assert "Set-Cookie" not in Request.blank("/", method="POST").get_response(wrapped).headers


@pytest.mark.parametrize("in_session", [True, False], ids=["in a session", "in a connection"])
def test_m1_rows_that_were_written_in_autocommit_mode_before_an_error_make_a_marker(
    shop: Any, in_session: bool
) -> None:
    master = shop.master.execution_options(isolation_level="AUTOCOMMIT")
    with resume(""), use_master():
        with RoutingSession(master) if in_session else master.connect() as runs, pytest.raises(IntegrityError):
            runs.execute(text("INSERT INTO message (id, body) VALUES (:id, 'hello')"), [{"id": 1}, {"id": 1}])
        token = carry()
        with shop.Session() as session:
            assert token or session.scalar(select(func.count(shop.Message.id))) == 0
