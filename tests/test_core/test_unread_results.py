"""Writes in results that are not read yet are found before a read or a response depends on them (M1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from MySQLdb.cursors import SSCursor as MySQLdbSSCursor
from pymysql.constants import CLIENT
from pymysql.cursors import SSCursor
from tests.visits import post_and_read
from webob import Request

from replswitch import Connection
from replswitch.testing.sessions import SessionPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from tests.conftest import Served

Make = Callable[..., Connection]
Work = Callable[[Connection, ExitStack], None]

both = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)
mariadb = pytest.mark.parametrize("served", ["mariadb", "mariadb-mysqlclient"], indirect=True)


def by_a_procedure(db: Connection, kept: ExitStack) -> None:
    cursor = kept.enter_context(db.cursor())
    cursor.callproc("show_write_show")
    cursor.fetchall()


def by_a_call(db: Connection, kept: ExitStack) -> None:
    cursor = kept.enter_context(db.cursor())
    cursor.execute("CALL show_write_show()")
    cursor.fetchall()


def by_several_statements(db: Connection, kept: ExitStack) -> None:
    cursor = kept.enter_context(db.cursor())
    cursor.execute("SELECT 1; INSERT INTO message (id, body) VALUES (1, 'hello'); SELECT 2")
    cursor.fetchall()


def row_by_row(db: Connection, kept: ExitStack) -> None:
    kind = SSCursor if db.OperationalError.__module__.startswith("pymysql") else MySQLdbSSCursor
    cursor = kept.enter_context(db.cursor(kind))
    cursor.execute("INSERT INTO message (id, body) VALUES (1, 'hello'), (2, 'hello') RETURNING id")
    cursor.fetchone()


def check(served: Served, make: Make, work: Work, *, own_read: bool) -> None:
    """Send a POST that does some work, and check that its visitor then sees the write, and other visitors do not."""
    settings: dict[str, Any] = {"client_flag": CLIENT.MULTI_STATEMENTS} if work is by_several_statements else {}
    db = make(master={**served.pair.master, **settings})

    def number() -> int:
        with db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
            return int(cursor.fetchone()[0])

    def wait_for_the_server() -> None:
        """Wait until the server has written: the results are unread, and the procedure may still be running."""
        with closing(served.pair.connect()) as plain, plain.cursor() as cursor:
            while True:
                cursor.execute("SELECT COUNT(*) FROM message")
                if cursor.fetchone()[0]:
                    return

    def write(kept: ExitStack) -> None:
        work(db, kept)
        if not own_read:
            wait_for_the_server()

    post_and_read(served.pair, write, number, own_read=own_read)


@pytest.fixture(autouse=True)
def _procedure(served: Served, make: Make) -> None:
    assert isinstance(served.pair, SessionPair)
    make()  # creates the table
    with served.pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS show_write_show")
        cursor.execute(
            "CREATE PROCEDURE show_write_show()"
            " BEGIN SELECT 1; INSERT INTO message (id, body) VALUES (1, 'hello'); SELECT 2; END"
        )
    served.pair.wait_caught_up()


@both
@pytest.mark.parametrize("own_read", [False, True], ids=["the request only writes", "the request also reads"])
@pytest.mark.parametrize("work", [by_a_procedure, by_a_call, by_several_statements])
def test_m1_a_write_after_unread_results_is_marked(served: Served, make: Make, work: Work, own_read: bool) -> None:
    check(served, make, work, own_read=own_read)


@mariadb
def test_m1_an_insert_returning_with_unread_rows_is_marked(served: Served, make: Make) -> None:
    check(served, make, row_by_row, own_read=False)


@pytest.mark.parametrize("served", ["mariadb"], indirect=True)
def test_m1_a_read_amid_the_rows_of_an_insert_returning_runs_on_the_master(served: Served, make: Make) -> None:
    check(served, make, row_by_row, own_read=True)


# Without MySQL and mysqlclient: there, earlier writes on the server count as well.
@pytest.mark.parametrize("served", ["mariadb", "mariadb-mysqlclient", "mysql"], indirect=True)
@pytest.mark.parametrize("work", [by_a_procedure, by_a_call])
def test_m1_results_that_were_read_and_have_written_nothing_make_no_marker(
    served: Served, make: Make, work: Work
) -> None:
    with served.pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS show_write_show")
        cursor.execute("CREATE PROCEDURE show_write_show() BEGIN SELECT 1; SELECT 2; END")
    db = make()

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with ExitStack() as kept:
            work(db, kept)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    wrapped = ReplicationMiddleware(application, secret="of the tests")
    assert "Set-Cookie" not in Request.blank("/", method="POST").get_response(wrapped).headers
