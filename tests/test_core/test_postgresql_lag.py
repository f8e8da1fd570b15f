"""The lag of a slave of PostgreSQL, as `max_lag` measures it: never too low, and not too high while nothing commits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from typing import Any

import psycopg
import pytest
from tests.eventually import eventually

from replswitch.drivers import Driver, load_driver
from replswitch.report import Asked
from replswitch.report.postgresql import ask_postgresql
from replswitch.report.status import ServerStatus
from replswitch.testing import PostgreSQLPair

DRIVER: Driver = load_driver("psycopg")

QUIET = 2.0
"""The seconds without a commit, after which the age of the latest commit is no lag of these tests."""


@pytest.fixture
def pair(postgresql_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS message")
        connection.execute("CREATE TABLE message (id SERIAL PRIMARY KEY, body TEXT)")
    postgresql_pair.wait_caught_up()
    yield postgresql_pair
    postgresql_pair.reset()


@contextmanager
def slave(pair: PostgreSQLPair) -> Iterator[Any]:
    """A connection to the slave."""
    with closing(DRIVER.open(pair.slaves[0], read_only=True)) as raw:
        yield raw


def seconds(raw: Any) -> float:
    """The measured lag."""
    found = DRIVER.seconds_behind(raw)
    assert found is not None
    return found


def lowest_soon(raw: Any, wanted: float) -> float:
    """Measure the lag until it is at most ``wanted``, as a busy machine may be behind, and return the lowest figure.

    End after 60 looks. A wrong query gives the age of the latest commit, and is right by chance if it is asked again
    and again: while a transaction pauses, the master reports its place anew after a while.
    """
    lowest, looks = inf, 0
    while lowest > wanted and looks < 60:
        lowest, looks = min(lowest, seconds(raw)), looks + 1
    return lowest


@contextmanager
def open_transaction(pair: PostgreSQLPair) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the master, in a transaction that has written and is rolled back at the end."""
    with closing(pair.connect()) as connection:
        connection.autocommit = False
        yield connection
        connection.rollback()


def insert(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute("INSERT INTO message (body) SELECT repeat('x', 500) FROM generate_series(1, %s)", (rows,))


def insert_until_a_record_is_cut(connection: psycopg.Connection[Any], raw: Any) -> None:
    """Write until the master has sent a part of a record, as it does without a commit: it writes whole pages."""

    def is_cut() -> bool:
        insert(connection, 50)
        time.sleep(0.5)  # the WAL writer writes at most 0.2 s later, and then the slave applies what it can
        sql = "SELECT latest_end_lsn > pg_last_wal_replay_lsn() FROM pg_stat_wal_receiver"
        return raw.question(sql)[0] is True and raw.question(sql)[0] is True

    eventually(is_cut)


def age(raw: Any) -> float:
    """The age of the latest commit that the slave has applied."""
    (seconds,) = raw.question("SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float")
    return float(seconds)


def test_f1_an_open_transaction_that_has_written_is_no_lag(pair: PostgreSQLPair) -> None:
    with slave(pair) as raw, open_transaction(pair) as connection:
        insert_until_a_record_is_cut(connection, raw)
        time.sleep(QUIET)
        assert age(raw) > QUIET
        assert lowest_soon(raw, 0) == 0


def test_f1_an_open_transaction_that_writes_all_the_time_is_a_lag_of_at_most_the_time_of_a_look(
    pair: PostgreSQLPair,
) -> None:
    ends = threading.Event()

    def write() -> None:
        with open_transaction(pair) as connection:
            while not ends.wait(0.01):
                insert(connection, 10)

    thread = threading.Thread(target=write)
    with slave(pair) as raw:
        thread.start()
        try:
            time.sleep(QUIET)
            assert lowest_soon(raw, 0.1) <= 0.1
            assert age(raw) > QUIET
        finally:
            ends.set()
            thread.join()


def test_f1_an_idle_master_and_checkpoints_are_no_lag(pair: PostgreSQLPair) -> None:
    with slave(pair) as raw, closing(pair.admin()) as admin:
        time.sleep(QUIET)
        assert lowest_soon(raw, 0) == 0
        for _ in range(3):
            admin.execute("CHECKPOINT")
            assert lowest_soon(raw, 0.1) <= 0.1
        assert age(raw) > QUIET


def test_f1_a_slave_that_was_restarted_during_an_open_transaction_has_no_lag(pair: PostgreSQLPair) -> None:
    with open_transaction(pair) as connection:
        with slave(pair) as raw:
            insert_until_a_record_is_cut(connection, raw)
        pair.kill("slave")
        pair.start("slave")
        with slave(pair) as raw:
            eventually(lambda: seconds(raw) != inf)
            time.sleep(QUIET)
            assert lowest_soon(raw, 0) == 0


def test_f1_a_restarted_slave_that_has_not_applied_the_first_commit_is_not_without_lag(pair: PostgreSQLPair) -> None:
    """The server knows of no commit then, so nothing bounds the lag."""
    with closing(pair.admin()) as admin:
        admin.execute("CHECKPOINT")
    pair.wait_caught_up()
    pair.lag = 3600
    pair.kill("slave")
    pair.start("slave")
    with slave(pair) as raw:
        eventually(lambda: raw.question("SELECT status = 'streaming' FROM pg_stat_wal_receiver") == (True,))
        assert raw.question("SELECT pg_last_xact_replay_timestamp()") == (None,), "the test does not test what it says"
        with closing(pair.connect()) as connection:
            insert(connection, 1)
        eventually(lambda: seconds(raw) == inf)
        status = ServerStatus("slave", "slave.db")
        ask_postgresql(raw, Asked("slave", "slave.db", lambda _: raw, Exception), status)
        assert (status.replication, status.behind) == ("running", None)


@pytest.mark.parametrize("how", ["delayed", "paused", "blocked"])
def test_f1_a_commit_that_is_not_applied_is_a_lag_of_at_least_its_age(pair: PostgreSQLPair, how: str) -> None:
    """Also if a transaction on the master goes on writing, and a part of a record arrives."""
    with slave(pair) as raw, closing(pair.admin("slave")) as other, open_transaction(pair) as connection:
        if how == "delayed":
            pair.lag = 3600
        elif how == "paused":
            other.execute("SELECT pg_wal_replay_pause()")
            eventually(lambda: other.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        else:
            other.autocommit = False
            other.execute("SELECT FROM message")
        with closing(pair.connect()) as committing:
            committing.execute("CREATE TABLE IF NOT EXISTS other (id INT)")
            if how == "blocked":
                committing.execute("TRUNCATE message")
        began = time.monotonic()
        if how != "blocked":
            insert(connection, 200)
        time.sleep(QUIET)
        for _ in range(5):
            since = time.monotonic() - began
            assert seconds(raw) >= since
        other.rollback()
