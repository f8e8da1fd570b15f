"""connect(driver="mysqlclient"): it does not show commits, so the server is queried for them, once and in time.

test_connection.py tests with each driver what they have in common.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import pytest
from tests.ended_links import kill

from replswitch import MASTER, SLAVE, Connection, NoServerError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.positions import Position
from replswitch.testing.sessions import SessionPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from tests.conftest import Questions, Served

Make = Callable[..., Connection]

pytestmark = pytest.mark.parametrize("served", ["mariadb-mysqlclient", "mysql-mysqlclient"], indirect=True)

COUNT = "SELECT COUNT(*) FROM message"
INSERT = "INSERT INTO message (id, body) VALUES ({}, 'x')"


@pytest.fixture
def pair(served: Served) -> SessionPair:
    assert isinstance(served.pair, SessionPair)
    return served.pair


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def link_id(db: Connection) -> int:
    return int(run(db, "SELECT CONNECTION_ID()")[0][0])


@pytest.fixture
def warm(db: Connection) -> Connection:
    """With a link to each server, and after the queries of the first time."""
    with use_master():
        run(db, INSERT.format(1000))
        carry()
        with db.use_slave():
            run(db, COUNT)
    return db


class TestPositionQueries:
    def test_m1_a_write_counts_although_the_query_for_its_position_is_interrupted(
        self, warm: Connection, pair: SessionPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair.stop_slave()

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        def insert() -> None:
            run(warm, INSERT.format(1001))
            carry()

        with resume(""), use_master():
            monkeypatch.setattr("replswitch.drivers.mysqlclient._MasterConnection.ask", interrupt)
            with pytest.raises(KeyboardInterrupt):
                insert()
            monkeypatch.undo()
            token = carry()
        with resume(token), use_slave():
            assert run(warm, COUNT)[0][0] == 2

    def test_the_position_is_queried_once_before_the_next_slave_read(
        self, warm: Connection, pair: SessionPair, questions: Questions
    ) -> None:
        pair.stop_slave()
        with use_master():
            run(warm, INSERT.format(1001))
            with warm.use_slave():
                run(warm, COUNT)  # by a link to the master that refuses writes, which is open from here on
        with ExitStack() as recording:
            master = recording.enter_context(pair.statements("master"))
            slave = recording.enter_context(pair.statements("slave"))
            with use_master():
                run(warm, INSERT.format(1))
                run(warm, INSERT.format(2))
                for _ in range(2):
                    with warm.use_slave():
                        assert run(warm, COUNT) == ((4,),)
                carry()
        assert master == [INSERT.format(1), INSERT.format(2), questions.written, COUNT, COUNT]
        assert slave == [questions.position]

    @pytest.mark.parametrize("in_transaction", [False, True])
    @pytest.mark.parametrize("kind", ["whole", "pieces"], ids=["body in one piece", "body in pieces"])
    def test_the_position_is_queried_once_before_the_response_to_a_post(
        self, warm: Connection, pair: SessionPair, questions: Questions, kind: str, in_transaction: bool
    ) -> None:
        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if in_transaction:
                warm.begin()
            run(warm, INSERT.format(1))
            run(warm, INSERT.format(2))
            if in_transaction:
                warm.commit()
            start_response("302 Found", [("Location", "/")])
            return [b"written"] if kind == "whole" else iter([b"writ", b"ten"])

        answered: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answered.append(dict(headers))
            return print

        environ: WSGIEnvironment = {"REQUEST_METHOD": "POST"}
        setup_testing_defaults(environ)
        with pair.statements("master") as master:
            body = ReplicationMiddleware(application, "a secret")(environ, start_response)
            list(body)
            getattr(body, "close", int)()
        assert master.count(questions.written) == 1
        assert len(master) == (5 if in_transaction else 3)
        assert "Max-Age=3600" in answered[0]["Set-Cookie"]

    def test_a_request_that_only_reads_sends_no_position_query(self, warm: Connection, pair: SessionPair) -> None:
        with pair.statements("slave") as slave, pair.statements("master") as master:
            with use_slave():
                run(warm, COUNT)
            assert carry() == ""
        assert slave == [COUNT]
        assert master == []

    def test_a_write_outside_any_scope_sends_no_position_query(self, warm: Connection, pair: SessionPair) -> None:
        with pair.statements("master") as master:
            run(warm, INSERT.format(1))
        assert master == [INSERT.format(1)]


class TestWhatWrote:
    @pytest.mark.parametrize("sql", [INSERT.format(1), "CREATE TABLE other (id INT)", "CALL post()", "CALL fails()"])
    def test_m1_a_statement_that_writes_is_recorded(self, warm: Connection, sql: str) -> None:
        post = INSERT.format(7)
        for unwanted in ("TABLE IF EXISTS other", "PROCEDURE IF EXISTS post", "PROCEDURE IF EXISTS fails"):
            run(warm, f"DROP {unwanted}")
        run(warm, f"CREATE PROCEDURE post() BEGIN SELECT 1; {post}; END")
        run(warm, f"CREATE PROCEDURE fails() BEGIN {post}; SIGNAL SQLSTATE '45000'; END")
        with use_master():
            run(warm, "SET @a = 1")
            carry()  # what was written so far is known
        with use_master():
            if "fails" in sql:
                with pytest.raises(warm.OperationalError, match="1644"):
                    run(warm, sql)
            else:
                run(warm, sql)
            assert '"p"' in carry()

    def test_m1_a_function_that_writes_is_recorded(self, warm: Connection, pair: SessionPair) -> None:
        for name in pair.names:
            with pair.admin(name) as admin, admin.cursor() as cursor:
                cursor.execute("SET GLOBAL log_bin_trust_function_creators = ON")
        run(warm, "DROP FUNCTION IF EXISTS post")
        run(
            warm,
            f"CREATE FUNCTION post() RETURNS INT MODIFIES SQL DATA BEGIN {INSERT.format(1)}; RETURN 1; END",
        )
        with use_master():
            carry()
        pair.wait_caught_up()
        pair.stop_slave()
        with use_master():
            run(warm, "SELECT post()")
            with warm.use_slave():
                assert run(warm, COUNT) == ((2,),)
            assert '"p"' in carry()

    def test_m1_a_session_that_reads_does_not_record_writes_of_other_sessions(
        self, warm: Connection, pair: SessionPair
    ) -> None:
        with pair.connect() as plain, plain.cursor() as cursor:
            cursor.execute(INSERT.format(1))
        with use_master():
            run(warm, COUNT)
            assert carry() == ""

    @pytest.mark.parametrize("sql", [COUNT, "UPDATE message SET body = 'y' WHERE id = 77", "SET @a = 1"])
    def test_m1_a_statement_that_writes_nothing_is_not_recorded(self, warm: Connection, sql: str) -> None:
        with use_master():
            run(warm, sql)
            assert carry() == ""
            with warm.use_slave():
                run(warm, COUNT)
        assert warm.queries[-1]["db"] == SLAVE

    def test_m1_a_rolled_back_transaction_is_not_recorded(self, warm: Connection) -> None:
        with use_master():
            warm.begin()
            run(warm, INSERT.format(1))
            warm.rollback()
            assert carry() == ""

    def test_m1_a_transaction_committed_by_ddl_is_recorded_despite_the_rollback(self, warm: Connection) -> None:
        with use_master():
            warm.begin()
            run(warm, INSERT.format(1))
            run(warm, "DROP TABLE IF EXISTS other")
            run(warm, "CREATE TABLE other (id INT)")
            warm.rollback()
            assert '"p"' in carry()

    def test_m1_a_write_whose_position_query_fails_holds_by_time(self, warm: Connection, pair: SessionPair) -> None:
        with use_master():
            number = link_id(warm)
            run(warm, INSERT.format(1))
            kill(pair, "master", number)
            assert '"t"' in carry()
            with warm.use_slave():
                assert run(warm, COUNT) == ((2,),)
        assert (warm.queries[-1]["db"], warm.queries[-1]["reason"]) == (MASTER, "own-write")


class TestLinks:
    def test_a_link_with_a_pending_write_returns_to_the_pool_at_the_end_of_its_scope(self, db: Connection) -> None:
        """And does not wait for Python's garbage collector."""
        gc.disable()
        try:
            used = set()
            for _ in range(5):
                with use_master():
                    used.add(link_id(db))
            assert len(used) == 1
        finally:
            gc.enable()

    def test_the_settings_of_the_application_reach_the_driver(self, make: Make, pair: SessionPair) -> None:
        db = make(master={**pair.master, "sql_mode": "ANSI_QUOTES", "charset": "utf8mb4"}, slaves=pair.slaves)
        with use_master():
            assert run(db, "SELECT @@sql_mode") == (("ANSI_QUOTES",),)
            run(db, INSERT.format(1))
            assert '"p"' in carry()

    def test_f3_reads_continue_while_the_master_or_the_slave_is_down(self, db: Connection, pair: SessionPair) -> None:
        with use_slave():
            run(db, COUNT)
            pair.kill("slave")
            run(db, COUNT)
        assert db.queries[-1]["reason"] == "no-slave"
        pair.start("slave")
        pair.kill("master")
        with use_slave():
            run(db, COUNT)
        with pytest.raises(NoServerError, match="cannot be reached"):
            run(db, COUNT)

    def test_eight_threads_each_see_their_own_writes(self, db: Connection, pair: SessionPair) -> None:
        together = threading.Barrier(8)
        pair.stop_slave()

        def work(thread: int) -> list[Any]:
            together.wait(10)
            found = []
            for number in range(thread * 100 + 1, thread * 100 + 11):
                with use_master():
                    run(db, INSERT.format(number))
                    with db.use_slave():
                        found.append(run(db, f"SELECT id FROM message WHERE id = {number}") == ((number,),))
            return found

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [[True] * 10] * 8


def test_p1_the_latest_position_of_the_master_includes_the_writes_of_other_connections(
    db: Connection, pair: SessionPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load_driver("mysqlclient")
    with (
        closing(driver.open(pair.master, read_only=False)) as master,
        closing(driver.open(pair.slaves[0], read_only=True)) as slave,
    ):
        pair.stop_slave()
        query = type(master).query
        assert isinstance(driver.latest_position(master), Position)
        sent: list[bytes] = []

        def spy(raw: Any, sql: bytes) -> None:
            sent.append(sql)
            query(raw, sql)

        monkeypatch.setattr(type(master), "query", spy)
        before = vars(master).copy()
        with use_master():
            run(db, INSERT.format(1))
        sent.clear()
        latest = driver.latest_position(master)
        assert len(sent) == 1, sent
        assert vars(master) == before
        assert isinstance(latest, Position)
        assert not driver.wait_for(slave, latest, 0.1)
        pair.start_slave()
        assert driver.wait_for(slave, latest, 20)
