"""A slave takes the master's place in a pair of real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pymysql
import pytest

from replswitch.errors import ConfigurationError
from replswitch.testing import MariaDBPair, MySQLPair, NotCaughtUpError, PairError, PostgreSQLPair
from replswitch.testing.plugin import start_or_skip
from replswitch.testing.promotion import PromotablePair
from replswitch.testing.servers import ServerPair


@pytest.fixture(scope="module", params=[MariaDBPair, MySQLPair, PostgreSQLPair])
def started(request: pytest.FixtureRequest) -> Iterator[PromotablePair]:
    pair: PromotablePair = request.param(slaves=2)
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture
def pair(started: PromotablePair) -> PromotablePair:
    started.reset()
    assert started.master_name == "master"
    execute(started, "master", "DROP TABLE IF EXISTS message")
    execute(started, "master", "CREATE TABLE message (number INTEGER PRIMARY KEY)")
    write(started, 1)
    started.wait_caught_up()
    return started


ERRORS = (pymysql.MySQLError, psycopg.Error)


@contextmanager
def blocked(pair: PromotablePair, name: str) -> Iterator[None]:
    """While this is entered, the slave cannot apply anything. The promotion of a PostgreSQL slave ends a pause."""
    if isinstance(pair, PostgreSQLPair):
        with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM message")
            execute(pair, pair.master_name, "ALTER TABLE message ADD other INT")
            yield
        return
    assert isinstance(pair, ServerPair)
    with closing(pair.admin(name)) as admin:
        admin.cursor().execute("LOCK TABLES shop.message READ")
        yield


def execute(pair: PromotablePair, name: str | None, sql: str) -> list[int]:
    with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def write(pair: PromotablePair, number: int) -> None:
    execute(pair, None, f"INSERT INTO message VALUES ({number})")


def everywhere(pair: PromotablePair) -> list[list[int]]:
    pair.wait_caught_up()
    return [execute(pair, name, "SELECT number FROM message ORDER BY number") for name in pair.names]


def test_a_promotion_changes_the_roles_of_the_servers_and_not_their_names(pair: PromotablePair) -> None:
    addresses = {
        name: parameters["port"] for name, parameters in zip(pair.names, [pair.master, *pair.slaves], strict=True)
    }
    pair.promote("slave")
    assert (pair.master_name, pair.slave_names) == ("slave", ("master", "slave2"))
    assert pair.names == ("master", "slave", "slave2")
    assert pair.master["port"] == addresses["slave"]
    assert [one["port"] for one in pair.slaves] == [addresses["master"], addresses["slave2"]]


def test_writes_to_the_new_master_arrive_on_all_servers(pair: PromotablePair) -> None:
    pair.promote("slave")
    write(pair, 2)
    assert everywhere(pair) == [[1, 2]] * 3
    for name in pair.slave_names:
        with pytest.raises(ERRORS, match=r"read.?only"):
            execute(pair, name, "INSERT INTO message VALUES (3)")


def test_several_promotions_in_a_row_lose_no_write(pair: PromotablePair) -> None:
    for number, name in enumerate(("slave", "master", "slave2", "slave", "master"), 2):
        pair.promote(name)
        write(pair, number)
    assert everywhere(pair) == [[1, 2, 3, 4, 5, 6]] * 3


def test_reset_makes_the_first_master_the_master_again_and_keeps_what_was_written(pair: PromotablePair) -> None:
    pair.promote("slave2")
    write(pair, 2)
    pair.kill("master")
    write(pair, 3)
    pair.reset()
    assert (pair.master_name, pair.slave_names) == ("master", ("slave", "slave2"))
    write(pair, 4)
    assert everywhere(pair) == [[1, 2, 3, 4]] * 3


def test_a_promotion_does_not_wait_for_the_lag_and_keeps_its_setting(pair: PromotablePair) -> None:
    pair.lag = 3600
    write(pair, 2)
    pair.promote("slave")
    assert execute(pair, "slave", "SELECT number FROM message") == [1, 2]
    write(pair, 3)
    assert execute(pair, "slave2", "SELECT number FROM message") == [1]
    assert execute(pair, "master", "SELECT number FROM message") == [1, 2]
    pair.lag = 0
    assert everywhere(pair) == [[1, 2, 3]] * 3


def test_a_stopped_slave_can_be_promoted_and_other_stopped_slaves_stay_stopped(pair: PromotablePair) -> None:
    pair.stop_slave("slave")
    pair.stop_slave("slave2")
    write(pair, 2)
    pair.promote("slave")
    assert execute(pair, "slave", "SELECT number FROM message") == [1, 2]
    assert execute(pair, "slave2", "SELECT number FROM message") == [1]
    with pytest.raises(ConfigurationError, match=r"The master is not a slave\. The slaves are master, slave2"):
        pair.stop_slave("slave")
    pair.start_slave("slave2")
    assert everywhere(pair) == [[1, 2]] * 3


def test_a_slave_that_was_down_follows_the_new_master(pair: PromotablePair) -> None:
    pair.kill("slave2")
    pair.promote("slave")
    write(pair, 2)
    pair.kill("slave")
    for name in ("slave2", "slave"):
        pair.start(name)
    write(pair, 3)
    assert everywhere(pair) == [[1, 2, 3]] * 3
    pair.kill("slave")
    with pytest.raises(PairError, match=r'the master is down, so .* Call start\("slave"\) first'):
        pair.wait_caught_up()


def test_sessions_that_are_open_on_the_old_master_cannot_write_after_a_promotion(pair: PromotablePair) -> None:
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO message VALUES (2)")
        pair.promote("slave")
        first, then = r"read.?only", r"read.?only"
        if isinstance(pair, PostgreSQLPair):
            first, then = "terminating connection", "the connection is (closed|lost)"
        with pytest.raises(ERRORS, match=first):
            cursor.execute("COMMIT")
        with pytest.raises(ERRORS, match=then):
            cursor.execute("INSERT INTO message VALUES (3)")
    write(pair, 4)
    assert everywhere(pair) == [[1, 4]] * 3


def test_a_client_that_writes_during_a_promotion_loses_no_write(pair: PromotablePair) -> None:
    answered: list[int] = []
    over = threading.Event()

    def go_on() -> None:
        with closing(pair.connect()) as connection, connection.cursor() as cursor:
            for number in range(2, 100_000):
                try:
                    cursor.execute("INSERT INTO message VALUES (%s)", (number,))
                except ERRORS:
                    break
                answered.append(number)
        over.set()

    writer = threading.Thread(target=go_on)
    writer.start()
    while len(answered) < 20:
        assert not over.wait(0.01)
    pair.promote("slave")
    writer.join(10)
    assert everywhere(pair) == [[1, *answered]] * 3


def test_a_slave_that_does_not_catch_up_is_not_promoted(pair: PromotablePair) -> None:
    with blocked(pair, "slave"):
        execute(pair, None, "INSERT INTO message (number) VALUES (2)")
        with pytest.raises(NotCaughtUpError, match="slave has not caught up"):
            pair.promote("slave", timeout=0.3)
    assert pair.master_name == "master"
    execute(pair, None, "INSERT INTO message (number) VALUES (3)")
    assert everywhere(pair) == [[1, 2, 3]] * 3


def test_promoting_a_wrong_server_is_an_error_with_the_reason(pair: PromotablePair) -> None:
    with pytest.raises(ConfigurationError, match="The master is not a slave"):
        pair.promote("master")
    with pytest.raises(ConfigurationError, match="'slave3' is not a server of this pair"):
        pair.promote("slave3")
    pair.kill("slave")
    with pytest.raises(PairError, match=r'the slave is down, so slave cannot be promoted. Call start\("slave"\) first'):
        pair.promote("slave")
    pair.kill("master")
    with pytest.raises(PairError, match="the master is down, so slave2 cannot be promoted"):
        pair.promote("slave2")


def test_a_pair_that_is_started_again_has_its_first_master(pair: PromotablePair) -> None:
    with type(pair)() as other:
        other.promote()
        other.close()
        other.start()
        assert other.master_name == "master"
        assert other.slave_names == ("slave",)
