"""The contract of ReplicatedPair, held by every pair."""

from __future__ import annotations

import math
import sqlite3
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from tests.eventually import eventually

from replswitch.errors import ConfigurationError
from replswitch.testing import (
    MariaDBPair,
    MySQLPair,
    NotCaughtUpError,
    PairError,
    PostgreSQLPair,
    ReplicatedPair,
    SQLitePair,
)
from replswitch.testing.plugin import start_or_skip
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 3600
"""A lag that no test waits for."""


def execute(pair: ReplicatedPair, name: str, sql: str) -> list[Any]:
    with closing(pair.connect(name)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def write(pair: ReplicatedPair, number: int) -> None:
    execute(pair, "master", f"INSERT INTO message VALUES ({number})")


def read(pair: ReplicatedPair, name: str) -> list[int]:
    return [row[0] for row in execute(pair, name, "SELECT number FROM message ORDER BY number")]


@pytest.fixture(scope="module")
def pair_of() -> Iterator[Callable[[type[ReplicatedPair]], ReplicatedPair]]:
    """One pair of each kind, started when it is first asked for."""
    with ExitStack() as running:

        @cache
        def start(kind: type[ReplicatedPair]) -> ReplicatedPair:
            pair = kind(slaves=2)
            start_or_skip(pair)
            running.callback(pair.close)
            return pair

        yield start


class PairContract(ABC):
    kind: type[ReplicatedPair]
    driver_error: type[Exception]

    @pytest.fixture
    def pair(self, pair_of: Callable[[type[ReplicatedPair]], ReplicatedPair]) -> ReplicatedPair:
        pair = pair_of(self.kind)
        pair.reset()
        execute(pair, "master", "DROP TABLE IF EXISTS message")
        execute(pair, "master", "CREATE TABLE message (number INTEGER PRIMARY KEY)")
        pair.wait_caught_up()
        return pair

    @abstractmethod
    def blocked(self, pair: ReplicatedPair, name: str) -> AbstractContextManager[None]:
        """While this is entered, the slave cannot apply anything."""

    @abstractmethod
    def is_connected(self, pair: ReplicatedPair, name: str) -> bool:
        """Whether a slave is connected to its master."""

    @abstractmethod
    def plain_connect(self, parameters: dict[str, Any]) -> Any:
        """A connection as anybody would open it who has the parameters."""

    def test_the_servers_have_names_and_addresses_of_their_own(self, pair: ReplicatedPair) -> None:
        assert pair.names == ("master", "slave", "slave2")
        assert pair.slave_names == ("slave", "slave2")
        addresses = [pair.master, *pair.slaves]
        assert all(addresses.count(address) == 1 for address in addresses)

    def test_the_drivers_connect_accepts_the_parameters_of_each_server(self, pair: ReplicatedPair) -> None:
        write(pair, 1)
        pair.wait_caught_up()
        for parameters in (pair.master, *pair.slaves):
            with closing(self.plain_connect(parameters)) as connection, closing(connection.cursor()) as cursor:
                cursor.execute("SELECT number FROM message")
                assert cursor.fetchall()[0] == (1,)

    def test_changing_the_returned_parameters_does_not_change_the_pair(self, pair: ReplicatedPair) -> None:
        pair.master.clear()
        pair.slaves.clear()
        assert pair.master
        assert len(pair.slaves) == 2

    def test_a_write_to_the_master_arrives_on_each_slave(self, pair: ReplicatedPair) -> None:
        for number in range(20):
            write(pair, number)
        pair.wait_caught_up()
        assert read(pair, "slave") == read(pair, "slave2") == list(range(20))

    def test_a_slave_refuses_writes(self, pair: ReplicatedPair) -> None:
        for name in pair.slave_names:
            with pytest.raises(self.driver_error, match=r"read.?only"):
                execute(pair, name, "INSERT INTO message VALUES (1)")

    def test_a_transaction_arrives_as_a_whole(self, pair: ReplicatedPair) -> None:
        with closing(pair.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO message VALUES (1)")
            pair.wait_caught_up()
            assert read(pair, "slave") == []
            cursor.execute("INSERT INTO message VALUES (2)")
            cursor.execute("COMMIT")
        pair.wait_caught_up()
        assert read(pair, "slave") == [1, 2]

    def test_the_slaves_lag_by_the_seconds_that_were_set(self, pair: ReplicatedPair) -> None:
        pair.lag = 1
        assert pair.lag == 1
        began = time.monotonic()
        write(pair, 1)
        assert read(pair, "master") == [1]
        arrived: dict[str, float] = {}
        while len(arrived) < 2:
            arrived |= {name: time.monotonic() for name in pair.slave_names if name not in arrived and read(pair, name)}
        assert all(moment - began >= 1 for moment in arrived.values()), arrived
        pair.lag = LONG
        write(pair, 2)
        assert read(pair, "slave") == read(pair, "slave2") == [1]

    def test_writes_that_wait_for_a_lag_arrive_at_once_when_the_lag_is_set_to_zero(self, pair: ReplicatedPair) -> None:
        pair.lag = LONG
        write(pair, 1)
        assert read(pair, "slave") == []
        pair.lag = 0
        pair.wait_caught_up()
        assert read(pair, "slave") == read(pair, "slave2") == [1]

    def test_setting_a_lag_does_not_hide_rows_that_have_arrived(self, pair: ReplicatedPair) -> None:
        write(pair, 1)
        pair.wait_caught_up()
        pair.lag = LONG
        write(pair, 2)
        assert read(pair, "slave") == [1]

    def test_the_lag_of_a_pair_is_kept_when_a_server_is_killed_and_started(self, pair: ReplicatedPair) -> None:
        pair.lag = LONG
        pair.kill("slave")
        pair.start("slave")
        write(pair, 1)
        assert read(pair, "slave") == []
        pair.kill("slave")
        pair.lag = 0
        pair.start("slave")
        pair.wait_caught_up()
        assert read(pair, "slave") == [1]

    def test_a_stopped_slave_serves_the_rows_that_it_has(self, pair: ReplicatedPair) -> None:
        write(pair, 1)
        pair.wait_caught_up()
        pair.stop_slave()
        write(pair, 2)
        pair.wait_caught_up()
        assert read(pair, "slave") == [1]
        assert read(pair, "slave2") == [1, 2]
        pair.start_slave()
        pair.wait_caught_up()
        assert read(pair, "slave") == [1, 2]

    def test_a_stopped_slave_stays_stopped_when_the_lag_or_a_server_changes(self, pair: ReplicatedPair) -> None:
        pair.stop_slave("slave2")
        pair.lag = LONG
        pair.lag = 0
        pair.kill("slave2")
        write(pair, 1)
        pair.start("slave2")
        pair.wait_caught_up()
        time.sleep(0.2)  # time for what must not happen
        assert read(pair, "slave") == [1]
        assert read(pair, "slave2") == []
        pair.kill("slave2")
        pair.start_slave("slave2")
        pair.start("slave2")
        pair.wait_caught_up()
        assert read(pair, "slave2") == [1]

    def test_a_killed_slave_that_is_started_catches_up(self, pair: ReplicatedPair) -> None:
        write(pair, 1)
        pair.wait_caught_up()
        address = pair.slaves[0]
        pair.kill("slave")
        with pytest.raises(self.driver_error):
            read(pair, "slave")
        write(pair, 2)
        pair.wait_caught_up()
        assert read(pair, "slave2") == [1, 2]
        pair.start("slave")
        assert pair.slaves[0] == address
        pair.wait_caught_up()
        assert read(pair, "slave") == [1, 2]

    def test_a_killed_master_that_is_started_has_all_its_rows(self, pair: ReplicatedPair) -> None:
        address = pair.master
        write(pair, 1)
        pair.wait_caught_up()
        pair.stop_slave("slave2")
        write(pair, 2)
        pair.kill("master")
        with pytest.raises(self.driver_error):
            write(pair, 3)
        assert read(pair, "slave") in ([1], [1, 2])
        assert read(pair, "slave2") == [1]
        pair.start("master")
        pair.start_slave("slave2")
        assert pair.master == address
        write(pair, 4)
        pair.wait_caught_up()
        assert read(pair, "slave") == read(pair, "slave2") == read(pair, "master") == [1, 2, 4]

    def test_killing_and_starting_twice_is_no_error(self, pair: ReplicatedPair) -> None:
        pair.kill("slave")
        pair.kill("slave")
        pair.start("slave")
        pair.start("slave")
        pair.start()
        pair.start_slave("slave")
        pair.stop_slave("slave")
        pair.stop_slave("slave")
        pair.reset()
        assert read(pair, "slave") == []

    def test_reset_starts_all_servers_without_a_lag(self, pair: ReplicatedPair) -> None:
        pair.lag = LONG
        write(pair, 1)
        pair.stop_slave("slave")
        pair.kill("slave2")
        pair.kill("master")
        pair.reset()
        assert pair.lag == 0
        assert read(pair, "slave") == read(pair, "slave2") == [1]

    def test_after_a_reset_each_slave_is_connected_to_its_master(self, pair: ReplicatedPair) -> None:
        for killed in (["master"], ["slave", "master"]):
            for name in killed:
                pair.kill(name)
            pair.start("master")
            time.sleep(0.3)  # so that the slaves have tried to connect, or try again later
            pair.reset()
            assert all(self.is_connected(pair, name) for name in pair.slave_names)

    def test_wait_caught_up_names_the_slave_that_is_late(self, pair: ReplicatedPair) -> None:
        with self.blocked(pair, "slave2"):
            write(pair, 1)
            eventually(lambda: read(pair, "slave"))
            with pytest.raises(NotCaughtUpError, match="slave2 has not caught up: the master is at") as raised:
                pair.wait_caught_up(timeout=0.3)
            assert raised.value.server == "slave2"
            assert isinstance(raised.value, TimeoutError)
        pair.wait_caught_up()
        assert read(pair, "slave2") == [1]

    def test_wait_caught_up_without_a_master_raises(self, pair: ReplicatedPair) -> None:
        pair.kill("master")
        with pytest.raises(PairError, match="the master is down"):
            pair.wait_caught_up()

    def test_unknown_server_names_are_refused(self, pair: ReplicatedPair) -> None:
        for act in (pair.kill, pair.start, pair.connect, pair.stop_slave, pair.start_slave):
            with pytest.raises(ConfigurationError, match=r"'slave3' is not a server .* master, slave, slave2"):
                act("slave3")
        for act in (pair.stop_slave, pair.start_slave):
            with pytest.raises(ConfigurationError, match="The master is not a slave"):
                act("master")

    @pytest.mark.parametrize("lag", [-1, math.nan, math.inf, "2", None, True, 86401])
    def test_a_wrong_lag_is_refused(self, pair: ReplicatedPair, lag: Any) -> None:
        with pytest.raises(ConfigurationError, match="a lag is a number of seconds from 0 to 86400"):
            pair.lag = lag
        assert pair.lag == 0

    @pytest.mark.parametrize("slaves", [0, -1, True, 1.0, "1", None])
    def test_a_pair_without_a_slave_is_refused(self, slaves: Any) -> None:
        with pytest.raises(ConfigurationError, match="a pair has 1 slave or more"):
            self.kind(slaves=slaves)

    def test_using_a_pair_that_is_not_started_raises(self) -> None:
        pair = self.kind()
        for act in (pair.connect, pair.wait_caught_up, pair.stop_slave, lambda: pair.master):
            with pytest.raises(PairError, match=rf"Use `with {self.kind.__name__}\(\) as pair:`"):
                act()

    def test_a_pair_started_again_is_empty(self) -> None:
        pair = self.kind()
        pair.lag = LONG
        for _ in range(2):
            start_or_skip(pair)
            try:
                execute(pair, "master", "CREATE TABLE message (number INTEGER PRIMARY KEY)")
                write(pair, 1)
                with pytest.raises(self.driver_error):  # the table is not there yet
                    read(pair, "slave")
                parameters = pair.slaves[0]
            finally:
                pair.close()
                pair.close()
            with pytest.raises(self.driver_error):
                self.plain_connect(parameters)
            with pytest.raises(PairError):
                pair.connect()


class ServerPairContract(PairContract):
    driver_error = pymysql.MySQLError

    def test_after_a_reset_that_ends_a_lag_each_slave_reports_no_lag(self, pair: ReplicatedPair) -> None:
        pair.lag = LONG
        write(pair, 1)
        time.sleep(1.1)  # the status has whole seconds
        pair.reset()
        assert [self.status(pair, name, "behind") for name in pair.slave_names] == [0, 0]

    def plain_connect(self, parameters: dict[str, Any]) -> Any:
        return pymysql.connect(**parameters)

    @contextmanager
    def blocked(self, pair: ReplicatedPair, name: str) -> Iterator[None]:
        assert isinstance(pair, ServerPair)
        with closing(pair.admin(name)) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLES shop.message READ")
            yield

    def is_connected(self, pair: ReplicatedPair, name: str) -> bool:
        return bool(self.status(pair, name, "connected") == "Yes")

    def status(self, pair: ReplicatedPair, name: str, asked: str) -> Any:
        """What a slave reports about its replication."""
        assert isinstance(pair, ServerPair)
        columns = {"connected": f"{pair.dialect.role}_IO_Running", "behind": pair.dialect.behind}
        with closing(pair.admin(name)) as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(pair.dialect.status)
            return cursor.fetchall()[0][columns[asked]]


class TestMariaDBPair(ServerPairContract):
    kind = MariaDBPair


class TestMySQLPair(ServerPairContract):
    kind = MySQLPair


class TestPostgreSQLPair(PairContract):
    kind = PostgreSQLPair
    driver_error = psycopg.Error

    def plain_connect(self, parameters: dict[str, Any]) -> Any:
        return psycopg.connect(**parameters)

    @contextmanager
    def blocked(self, pair: ReplicatedPair, name: str) -> Iterator[None]:
        assert isinstance(pair, PostgreSQLPair)
        with closing(pair.admin(name)) as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            yield
            connection.execute("SELECT pg_wal_replay_resume()")

    def is_connected(self, pair: ReplicatedPair, name: str) -> bool:
        return execute(pair, name, "SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]


class TestSQLitePair(PairContract):
    kind = SQLitePair
    driver_error = sqlite3.Error

    def plain_connect(self, parameters: dict[str, Any]) -> Any:
        return sqlite3.connect(**parameters)

    @contextmanager
    def blocked(self, pair: ReplicatedPair, name: str) -> Iterator[None]:
        with closing(pair.connect(name)) as connection:
            connection.execute("PRAGMA query_only = OFF")
            connection.execute("BEGIN IMMEDIATE")
            yield

    def is_connected(self, pair: ReplicatedPair, name: str) -> bool:
        return True  # files have no connection
