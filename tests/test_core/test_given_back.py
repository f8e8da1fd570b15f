"""The traces of a statement do not reach another scope; and each of several arguments is used once."""

from __future__ import annotations

import contextvars
import gc
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import pytest
from tests.ended_links import killed_while_it_sleeps

import replswitch
from replswitch import SLAVE, Connection, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import Fault
from replswitch.state import stack
from replswitch.testing import MariaDBPair, Proxy
from replswitch.wsgi import ReplicationMiddleware

Make = Callable[..., Connection]

SERVED = ["mariadb", "mariadb-mysqlclient"]
pytestmark = pytest.mark.parametrize("served", SERVED, indirect=True)

ADD = "UPDATE counter SET n = n + 1 WHERE id = %s"


@pytest.fixture
def pair(replicated_pair: MariaDBPair) -> MariaDBPair:
    """With three counters at 0, and a procedure that writes after its rows."""
    with replicated_pair.admin() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE shop.counter (id INT PRIMARY KEY, n INT)")
        cursor.execute("INSERT INTO shop.counter VALUES (1, 0), (2, 0), (3, 0)")
        cursor.execute("CREATE OR REPLACE PROCEDURE shop.late() BEGIN SELECT 1; UPDATE shop.counter SET n = n + 1; END")
        cursor.execute("GRANT EXECUTE ON PROCEDURE shop.late TO shop@'%'")
    replicated_pair.wait_caught_up()
    return replicated_pair


def counts(pair: MariaDBPair) -> list[int]:
    with pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("SELECT n FROM counter ORDER BY id")
        return [n for (n,) in cursor.fetchall()]


def run(db: Connection, sql: str, *args: Any) -> None:
    with db.cursor() as cursor:
        cursor.execute(sql, args or None)


def test_s8_executemany_with_an_iterator_moves_with_all_its_arguments(make: Make, pair: MariaDBPair) -> None:
    db = make()
    with use_slave(), db.cursor() as cursor:
        cursor.executemany(ADD, ((number,) for number in (1, 2, 3)))
    assert counts(pair) == [1, 1, 1]


def test_executemany_that_fails_on_the_master_does_not_run_again(
    make: Make, pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some have run when one of them cannot be sent."""
    db = make()
    with use_master(), db.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        ((number,),) = cursor.fetchall()
        monkeypatch.setattr(db._driver, "classify", lambda *_: Fault.UNSENT)
        with killed_while_it_sleeps(pair, "master", number) as sleep, pytest.raises(db.Error):
            cursor.executemany(
                f"UPDATE counter SET n = n + 1 WHERE id = %s AND CASE id WHEN 2 THEN {sleep} ELSE 0 END = 0",
                [(1,), (2,), (3,)],
            )
    assert counts(pair) == [1, 0, 0]


def test_a_link_that_is_garbage_collected_with_its_cursor_goes_back_to_its_pool_open(
    make: Make, pair: MariaDBPair
) -> None:
    db = make(pool_size=1)

    def abandon_a_cursor() -> int:
        with use_master():
            cursor = db.cursor()
            cursor.execute("SELECT CONNECTION_ID() UNION ALL SELECT 0")
            (number,) = cursor.fetchone()
            circle: list[Any] = [cursor]
            circle.append(circle)
            return int(number)

    first = abandon_a_cursor()
    gc.collect()
    assert abandon_a_cursor() == first


def request(method: str, *statements: Callable[[], None]) -> None:
    """Let a request run some statements."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        for statement in statements:
            statement()
        start_response("200 OK", [])
        return []

    environ: WSGIEnvironment = {"REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    ReplicationMiddleware(application, "a secret")(environ, lambda *_: print)


def test_s11_a_transaction_left_open_does_not_reach_the_next_request(make: Make, pair: MariaDBPair) -> None:
    db = make(pool_size=1)
    request("POST", lambda: run(db, "START TRANSACTION"), lambda: run(db, ADD, 1))
    request("POST", lambda: run(db, ADD, 2))
    assert counts(pair) == [0, 1, 0]


def test_s11_a_snapshot_left_open_on_a_slave_is_closed_before_the_link_is_used_again(
    make: Make, pair: MariaDBPair
) -> None:
    db = make(pool_size=1)
    request("GET", lambda: run(db, "START TRANSACTION"), lambda: run(db, "SELECT * FROM counter"))
    with use_master():
        run(db, ADD, 1)
        pair.wait_caught_up()
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT n FROM counter WHERE id = 1")
            assert cursor.fetchall() in (((1,),), [(1,)])


def test_s11_unread_results_do_not_reach_the_next_scope(make: Make, pair: MariaDBPair) -> None:
    db = make(pool_size=1)
    with use_master():
        cursor = db.cursor()
        cursor.execute("CALL late()")
        del cursor
    with use_master():
        run(db, ADD, 1)
    assert counts(pair)[0] >= 1


def test_s8_a_write_of_a_procedure_after_its_rows_raises_slave_write_error(make: Make, pair: MariaDBPair) -> None:
    db = make()
    with use_slave(), pytest.raises(SlaveWriteError, match="has already returned rows"):
        run(db, "CALL late()")
    assert counts(pair) == [0, 0, 0]


def test_m1_a_write_of_another_thread_is_recorded_without_a_query_on_its_link(make: Make, pair: MariaDBPair) -> None:
    db = make()
    with use_master():
        run(db, "SELECT 1")
        frame = stack()
        assert frame is not None
        writer = threading.Thread(target=contextvars.copy_context().run, args=(run, db, ADD, 1))
        writer.start()
        writer.join()
        assert frame.scope.all_written() is not None
    assert counts(pair) == [1, 0, 0]


def test_f2_a_slave_that_hangs_at_begin_is_out_of_rotation(make: Make, pair: MariaDBPair) -> None:
    with Proxy(pair.slaves[0]["port"]) as proxy:
        db = make(slaves=[{**pair.slaves[0], "port": proxy.port, "read_timeout": 2, "connect_timeout": 2}])
        with use_slave():
            run(db, "SELECT 1")
        before = sum(replswitch.stats()["rest"].values())
        proxy.drop()
        with use_slave():
            db.begin()
            run(db, "SELECT 1")
            db.rollback()
        assert sum(replswitch.stats()["rest"].values()) == before + 1


def test_f1_a_query_slower_than_the_read_timeout_raises_and_the_slave_stays_in_rotation(
    make: Make, pair: MariaDBPair
) -> None:
    db = make(slaves=[{**pair.slaves[0], "read_timeout": 2}])
    with use_slave():
        with pytest.raises(db.OperationalError):
            run(db, "SELECT SLEEP(10)")
        run(db, "SELECT 1")
    assert [query["db"] for query in db.queries] == [SLAVE, SLAVE]
