"""MySQL Group Replication: transactions carry the UUID of the group, and not of the server that ran them (M1)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.decorators import use_master, use_slave
from replswitch.drivers.pymysql import DRIVER as PYMYSQL
from replswitch.testing import MySQLPair

GROUP = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pair() -> Iterator[MySQLPair]:
    """A master that is a group of its own, and its slave."""
    address = f"127.0.0.1:{free_port()}"
    with MySQLPair() as pair:
        with pair.admin() as admin, admin.cursor() as cursor:
            for statement in (
                "INSTALL PLUGIN group_replication SONAME 'group_replication.so'",
                f"SET GLOBAL group_replication_group_name = '{GROUP}'",
                f"SET GLOBAL group_replication_local_address = '{address}'",
                f"SET GLOBAL group_replication_group_seeds = '{address}'",
                "SET GLOBAL group_replication_bootstrap_group = ON",
                "START GROUP_REPLICATION",
                "CREATE TABLE shop.message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)",
                (
                    "CREATE PROCEDURE shop.write_and_fail() BEGIN"
                    " INSERT INTO shop.message (body) VALUES ('x'); SELECT * FROM shop.missing; END"
                ),
            ):
                cursor.execute(statement)
        pair.wait_caught_up()
        yield pair


@pytest.fixture(params=["pymysql", "mysqlclient"])
def db(pair: MySQLPair, request: pytest.FixtureRequest) -> Iterator[Connection]:
    with closing(replswitch.connect(pair.master, pair.slaves, driver=request.param, debug=True)) as db:
        yield db


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_m1_a_write_is_marked_and_a_read_is_not(db: Connection) -> None:
    with use_master():
        run(db, "INSERT INTO message (body) VALUES ('x')")
        assert GROUP in replswitch.carry()
    with use_master():
        run(db, "SELECT * FROM message")
        assert replswitch.carry() == ""


def test_m1_a_procedure_that_writes_and_then_fails_is_marked(db: Connection) -> None:
    with use_master():
        with pytest.raises(db.ProgrammingError):
            run(db, "CALL write_and_fail()")
        assert GROUP in replswitch.carry()


def test_m1_an_own_write_is_seen_while_the_slave_lags(db: Connection, pair: MySQLPair) -> None:
    pair.stop_slave()
    with use_master():
        run(db, "DELETE FROM message")
        run(db, "INSERT INTO message (body) VALUES ('mine')")
        carried = replswitch.carry()
    with replswitch.resume(carried), use_slave():
        assert run(db, "SELECT body FROM message") == (("mine",),)
        assert db.queries[-1]["db"] == "master"
    pair.start_slave()
    pair.wait_caught_up()
    with replswitch.resume(carried), use_slave():
        assert run(db, "SELECT body FROM message") == (("mine",),)
        assert db.queries[-1]["db"] == "slave"


def test_f1_a_group_member_has_no_replication_status_so_max_lag_compares_positions(pair: MySQLPair) -> None:
    with pair.admin() as admin, admin.cursor() as cursor:
        cursor.execute(f"GRANT REPLICATION CLIENT ON *.* TO {pair.user}@'%'")
    with closing(PYMYSQL.open(pair.master, read_only=True)) as member:
        assert PYMYSQL.seconds_behind(member) is None
        assert PYMYSQL.has_common_positions(member)
