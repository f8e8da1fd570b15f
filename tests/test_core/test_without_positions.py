"""Servers that report no positions (P3): markers by time, and one log line with the reason."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import pymysql
import pytest

import replswitch
from replswitch import MASTER, SLAVE, Connection, NoServerError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.positions import clock
from replswitch.testing import MariaDBPair, MySQLPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from replswitch.testing.servers import ServerPair


class UnloggedMariaDB(MariaDBPair):
    """One server without a binary log."""

    why = "its binary log is off"

    def __init__(self) -> None:
        super().__init__()
        self.names = self.names[:1]

    def _command(self, name: str, port: int) -> list[str]:
        return [*super()._command(name, port), "--skip-log-bin", "--skip-log-slave-updates"]


class MySQLWithoutGTIDs(MySQLPair):
    """One server with a binary log that has no GTIDs."""

    why = "its gtid_mode is not ON"

    def __init__(self) -> None:
        super().__init__()
        self.names = self.names[:1]

    def _command(self, name: str, port: int) -> list[str]:
        return [*super()._command(name, port), "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]


SERVERS: dict[str, type[UnloggedMariaDB | MySQLWithoutGTIDs]] = {
    "mariadb": UnloggedMariaDB,
    "mysql": MySQLWithoutGTIDs,
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[ServerPair]:
    request.getfixturevalue(f"{request.param}_pair_of_session")  # skips, or fails, where there is no server
    with SERVERS[request.param]() as pair:
        yield pair


@pytest.fixture(params=["pymysql", "mysqlclient"])
def db(request: pytest.FixtureRequest, server: ServerPair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection whose slave is the master itself: it has every write, but there is no position to show it."""
    monkeypatch.setattr(clock, "_logged", set())
    with server.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS message")
        cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
    with ExitStack() as closing:
        yield closing.enter_context(
            replswitch.connect(server.master, [server.master], driver=request.param, debug=True)
        )


def insert(db: Connection) -> None:
    with db.cursor() as cursor:
        cursor.execute("INSERT INTO message (body) VALUES ('x')")


def count(db: Connection) -> None:
    with db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        cursor.fetchall()


def read(db: Connection) -> tuple[str, str]:
    """The side that serves in slave state, and why."""
    with use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
    return db.queries[-1]["db"], db.queries[-1]["reason"]


def test_p3_without_positions_one_log_line_gives_the_reason(
    db: Connection, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with use_master():
        kept = db.cursor()  # and its link
        kept.execute("INSERT INTO message (body) VALUES ('x')")
        assert carry()
    for _ in range(2):
        with use_master():  # by another
            insert(db)
            assert carry()
    kept.close()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "replswitch.positions"]
    assert line == (
        f"The master reports no positions, because {server.why}. After a write, the master serves the"
        " visitor's reads for `cookie_max_age` seconds."
    )


def test_p3_after_a_write_the_master_serves_the_rest_of_the_scope(db: Connection) -> None:
    with use_master():
        assert read(db)[0] == SLAVE
        insert(db)
        assert read(db) == (MASTER, "own-write")
    assert read(db)[0] == SLAVE


def test_p3_a_token_without_a_position_holds_for_max_age(db: Connection) -> None:
    with use_master():
        insert(db)
        token = carry()
    with resume(token):
        assert read(db) == (MASTER, "marker")
    time.sleep(0.2)
    with resume(token, max_age=0.1):
        assert read(db)[0] == SLAVE


def send(application: WSGIApplication, method: str, cookie: str = "", **options: Any) -> str:
    """Return the cookie of the response."""
    headers: list[tuple[str, str]] = []
    environ: WSGIEnvironment = {"REQUEST_METHOD": method, "HTTP_COOKIE": cookie.partition(";")[0]}
    setup_testing_defaults(environ)

    def start_response(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
        headers.extend(given)

    ReplicationMiddleware(application, "a secret", **options)(environ, start_response)
    return dict(headers).get("Set-Cookie", "")


def test_p3_a_marker_without_a_position_holds_for_cookie_max_age(db: Connection) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            insert(db)
        else:
            read(db)
        start_response("200 OK", [])
        return [b""]

    cookie = send(application, "POST")
    assert "Max-Age=10;" in cookie
    assert (
        send(application, "GET", cookie) != ""
    )  # reads and writes look the same, so a visitor who reads on the master stays there
    assert db.queries[-1]["db"] == MASTER
    time.sleep(1.1)
    send(application, "GET", cookie, cookie_max_age=1)
    assert db.queries[-1]["db"] == SLAVE


def test_p3_a_transaction_after_a_write_runs_on_the_master_as_a_whole(
    db: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A later statement in it may write."""
    with use_master():
        insert(db)
        token = carry()
    db.queries.clear()
    with resume(token), use_slave():
        db.begin()
        with db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
        insert(db)
        db.commit()
    assert {query["db"] for query in db.queries} == {MASTER}
    assert not [record for record in caplog.records if getattr(record, "event", "") == "moved-write"]


def test_p3_a_request_in_master_state_can_write(db: Connection, caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        insert(db)
        start_response("200 OK", [])
        return [b""]

    cookie = send(application, "POST")
    assert send(application, "GET", cookie, override=lambda environ: MASTER) != ""
    assert not [record for record in caplog.records if getattr(record, "event", "") == "moved-write"]


def test_p3_a_moved_write_in_a_job_counts_for_the_scope_around_it(db: Connection) -> None:
    with use_master():
        insert(db)
        token = carry()
    with use_master():
        with resume(token), use_slave():
            insert(db)
        assert read(db)[0] == MASTER


def test_f5_without_positions_the_end_of_a_read_only_master_is_logged_after_downtime_and_not_before(
    db: Connection, server: ServerPair, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[str]:
        return [record.replswitch["event"] for record in caplog.records if hasattr(record, "replswitch")]

    with server.admin("master") as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = ON")
        for _ in range(5):
            with pytest.raises(NoServerError), use_master(), db.cursor() as refused:
                refused.execute("INSERT INTO message (body) VALUES ('x')")
            with use_master():
                count(db)
        assert lines() == ["master-lost"]
        cursor.execute("SET GLOBAL read_only = OFF")
    db.database.master_loss.latest -= db.database.options.downtime
    with use_master():
        insert(db)
    assert lines() == ["master-lost", "master-back"]


def connection_id(db: Connection) -> Any:
    with db.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchall()[0][0]


@contextmanager
def full(server: ServerPair) -> Iterator[None]:
    """Use up the connections of the server."""
    with closing(server.admin("master")) as admin, admin.cursor() as cursor, ExitStack() as opened:
        cursor.execute("SELECT @@GLOBAL.max_connections")
        ((before,),) = cursor.fetchall()
        cursor.execute("SET GLOBAL max_connections = 10")
        try:
            with suppress(pymysql.OperationalError):  # "Too many connections"
                while True:
                    opened.enter_context(closing(server.connect("master")))
            yield
        finally:
            cursor.execute(f"SET GLOBAL max_connections = {before}")


def lose_connection(db: Connection, server: ServerPair) -> None:
    """Lose a connection in a transaction, because an administrator ends it."""
    with use_master(), closing(server.admin("master")) as admin, admin.cursor() as cursor:
        db.begin()
        cursor.execute(f"KILL {connection_id(db)}")
        with pytest.raises(db.Error):
            insert(db)
        db.rollback()


class TestLossesInOtherThreads:
    """A scope has written. Then another thread cannot connect to the same server, or loses its connection."""

    def test_f5_a_master_at_its_connection_limit_goes_on_serving_a_scope_that_wrote(
        self, db: Connection, server: ServerPair
    ) -> None:
        with use_master(), ThreadPoolExecutor(1) as thread:
            insert(db)
            before = connection_id(db)
            with full(server):
                with pytest.raises(NoServerError, match="Too many"):
                    thread.submit(insert, db).result()
                with use_master():
                    assert connection_id(db) == before

    def test_s11_a_connection_that_another_thread_loses_ends_no_session_of_a_scope_that_wrote(
        self, db: Connection, server: ServerPair
    ) -> None:
        with use_master(), ThreadPoolExecutor(1) as thread:
            insert(db)
            before = connection_id(db)
            thread.submit(lose_connection, db, server).result()
            with use_master():
                assert connection_id(db) == before

    def test_s11_a_connection_that_another_thread_has_lost_ends_no_session_of_a_scope_that_writes(
        self, db: Connection, server: ServerPair
    ) -> None:
        with use_master(), ThreadPoolExecutor(1) as thread:
            before = connection_id(db)
            thread.submit(lose_connection, db, server).result()
            db.begin()
            insert(db)
            db.commit()
            assert connection_id(db) == before
