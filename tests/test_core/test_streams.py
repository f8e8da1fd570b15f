"""replswitch sends no statement of its own on a link whose rows are still being read (S6)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from replswitch import SLAVE, Connection
from replswitch.decorators import use_master, use_slave
from replswitch.testing import ReplicatedPair

if TYPE_CHECKING:
    Make = Callable[..., Connection]

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.fixture
def streaming(driver: str) -> Any:
    """The driver's cursor that reads row by row."""
    return import_module({"pymysql": "pymysql.cursors", "mysqlclient": "MySQLdb.cursors"}[driver]).SSCursor


@pytest.fixture
def filled(db: Connection, replicated_pair: ReplicatedPair) -> Connection:
    """A connection to a pair with five messages that are too long for one network packet."""
    with use_master():
        for number in range(5):
            run(db, f"INSERT INTO message (id, body) VALUES ({number}, REPEAT('x', 100))")
    replicated_pair.wait_caught_up()
    return db


@pytest.mark.parametrize("lags", [True, False], ids=["the slave lags", "the slave keeps up"])
@pytest.mark.parametrize("columns", ["id", "id, REPEAT(body, 10000)"])
def test_s6_rows_that_are_read_one_by_one_all_come_if_the_loop_writes_and_reads(
    filled: Connection, replicated_pair: ReplicatedPair, streaming: Any, lags: bool, columns: str
) -> None:
    if lags:
        replicated_pair.stop_slave()
    seen = []
    with use_slave(), filled.cursor(streaming) as cursor:
        with filled.use_master():
            run(filled, "SELECT 1")  # the connection now holds a link to the master
        cursor.execute(f"SELECT {columns} FROM message ORDER BY id")
        assert filled.queries[-1]["db"] == SLAVE
        for row in cursor:
            seen.append(row[0])
            with filled.use_master():
                run(filled, f"INSERT INTO message (id) VALUES ({row[0] + 100})")
            if not lags:
                replicated_pair.wait_caught_up()
            assert run(filled, "SELECT COUNT(*) FROM message") == ((5 + len(seen),),)
    assert seen == [0, 1, 2, 3, 4]
    replicated_pair.start_slave()


def test_s6_rows_of_the_master_all_come_if_the_loop_reads_in_slave_state(
    filled: Connection, replicated_pair: ReplicatedPair, streaming: Any
) -> None:
    seen = []
    with use_master(), filled.cursor(streaming) as cursor:
        run(filled, "UPDATE message SET body = 'new'")
        cursor.execute("SELECT id, REPEAT(body, 100000) FROM message ORDER BY id")
        for row in cursor:
            seen.append(row[0])
            with filled.use_slave():
                assert run(filled, "SELECT COUNT(*) FROM message WHERE body = 'new'") == ((5,),)
            run(filled, "SELECT 1")
    assert seen == [0, 1, 2, 3, 4]


def test_s6_a_link_is_free_again_when_its_rows_are_read_or_dropped(filled: Connection, streaming: Any) -> None:
    for read in ("fetchall", "close"):
        with use_slave(), filled.cursor(streaming) as cursor:
            (before,) = run(filled, "SELECT CONNECTION_ID()")
            cursor.execute("SELECT id FROM message")
            getattr(cursor, read)()
            with filled.use_slave():
                assert run(filled, "SELECT CONNECTION_ID()") == (before,)
