"""Transactions that the server has ended, that a text begins or ends, and what a lost one leaves behind."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from tests.deadlock import deadlock

import replswitch
from replswitch import Connection, NoServerError, SlaveWriteError
from replswitch.connect.pool import LeasedLink
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack
from replswitch.testing import MariaDBPair, Proxy

Make = Callable[..., Connection]

pytestmark = pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])


@pytest.fixture
def pair(message_pair: MariaDBPair) -> MariaDBPair:
    """A master and two slaves, with a table of messages and one of numbers."""
    for sql in (
        "CREATE OR REPLACE TABLE number (id INT PRIMARY KEY, value INT)",
        "INSERT INTO number VALUES (1, 0), (2, 0), (3, 0), (4, 0)",
    ):
        on_master(message_pair, sql)
    message_pair.wait_caught_up()
    return message_pair


@pytest.fixture
def make(pair: MariaDBPair, driver: str) -> Iterator[Make]:
    with ExitStack() as opened:

        def connect(**options: Any) -> Connection:
            arguments = {"master": pair.master, "slaves": pair.slaves[:1], "driver": driver, **options}
            return opened.enter_context(closing(replswitch.connect(**arguments)))

        yield connect


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else ()


def insert(db: Connection, body: str = "x") -> None:
    run(db, f"INSERT INTO message (body) VALUES ('{body}')")


def on_master(pair: MariaDBPair, sql: str) -> Any:
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def stored(pair: MariaDBPair) -> int:
    return int(on_master(pair, "SELECT COUNT(*) FROM message")[0][0])


def count(db: Connection) -> int:
    return int(run(db, "SELECT COUNT(*) FROM message")[0][0])


class TestEndedByTheServer:
    def test_s5_a_deadlock_in_the_first_statement_ends_the_transaction(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        db.begin()
        with deadlock(pair, "UPDATE number SET value = 1"), pytest.raises(db.OperationalError):
            run(db, "UPDATE number SET value = 2 WHERE id IN (1, 2)")
        with pytest.raises(db.OperationalError):
            insert(db)
        db.rollback()
        assert stored(pair) == 0

    def test_s5_a_record_that_has_changed_ends_the_transaction(self, make: Make, pair: MariaDBPair) -> None:
        db = make(master={**pair.master, "init_command": "SET SESSION innodb_snapshot_isolation = ON"})
        db.begin()
        insert(db, "before")
        run(db, "SELECT * FROM number")
        on_master(pair, "UPDATE number SET value = 9 WHERE id = 1")
        with pytest.raises(db.OperationalError, match="1020"):
            run(db, "UPDATE number SET value = value + 1 WHERE id = 1")
        with pytest.raises(db.OperationalError, match="1020"):
            insert(db, "after")
        with pytest.raises(db.OperationalError, match="1020"):
            db.commit()
        assert stored(pair) == 0

    def test_m1_after_the_rollback_no_link_is_left_in_a_transaction(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        with db.use_slave():
            db.begin()
            assert count(db) == 0
            with use_master():
                run(db, "UPDATE number SET value = 2 WHERE id = 1")
                with deadlock(pair, "UPDATE number SET value = 1"), pytest.raises(db.OperationalError):
                    run(db, "UPDATE number SET value = 2 WHERE id = 2")
            db.rollback()
            with use_master():
                insert(db)
            pair.wait_caught_up()
            assert count(db) == 1
            frame = stack()
            assert frame is not None
            assert frame.scope.all_written() is not None
        assert stored(pair) == 1


class TestControlByText:
    @pytest.mark.parametrize("chain", ["COMMIT AND CHAIN", "commit work and chain"])
    def test_s5_commit_and_chain_begins_the_next_transaction(self, make: Make, pair: MariaDBPair, chain: str) -> None:
        db = make()
        with use_master():
            db.begin()
            insert(db)
            run(db, chain)
            insert(db)
            db.commit()
        assert stored(pair) == 2

    @pytest.mark.parametrize("comment", ["-- transfer\n", "# transfer\n", "/* a */ /* b */\n--\n"])
    def test_s5_a_begin_after_comments_is_recognised(self, make: Make, pair: MariaDBPair, comment: str) -> None:
        db = make()
        with use_master():
            run(db, f"{comment}BEGIN")
            insert(db)
            run(db, f"{comment}COMMIT")
            insert(db)
            run(db, f"{comment}BEGIN")
            insert(db)
            db.rollback()
        assert stored(pair) == 2

    @pytest.mark.parametrize(
        "hidden",
        [
            "CALL open_one()",
            "BEGIN NOT ATOMIC START TRANSACTION; INSERT INTO message (body) VALUES ('lost'); END",
            "EXECUTE IMMEDIATE 'BEGIN'",
        ],
    )
    def test_s11_a_transaction_begun_inside_a_procedure_does_not_reach_another_request(
        self, make: Make, pair: MariaDBPair, hidden: str
    ) -> None:
        on_master(pair, "CREATE OR REPLACE PROCEDURE open_one() START TRANSACTION")
        db = make()
        with use_master():
            run(db, hidden)
            db.rollback()
        with use_master():
            insert(db)
        assert on_master(pair, "SELECT body FROM message") == (("x",),)

    def test_s5_a_compound_statement_begins_no_transaction(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        with use_master():
            run(db, "BEGIN NOT ATOMIC IF 1 = 0 THEN INSERT INTO message (body) VALUES ('never'); END IF; END")
            insert(db)
            frame = stack()
            assert frame is not None
            assert frame.scope.all_written() is not None
        assert stored(pair) == 1


def test_s8_a_write_after_select_into_a_variable_does_not_move(make: Make, pair: MariaDBPair) -> None:
    db = make()
    with db.use_slave():
        run(db, "SELECT value + 7 INTO @x FROM number WHERE id = 1")
        with pytest.raises(SlaveWriteError, match="changed the session"):
            run(db, "INSERT INTO message (body) VALUES (@x)")
    assert stored(pair) == 0


def test_s12_a_forked_child_does_not_share_the_transaction(make: Make, pair: MariaDBPair) -> None:
    db = make()
    with use_master():
        db.begin()
        insert(db)
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                for use in (lambda: run(db, "SELECT 1"), db.commit):
                    with pytest.raises(db.InterfaceError, match="before a fork"):
                        use()
                run(db, "SELECT 1")
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert stored(pair) == 0
        insert(db)
        db.commit()
    assert stored(pair) == 2


def test_s6_a_cursor_may_be_closed_after_its_connection(make: Make) -> None:
    db = make()
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        db.close()


class Faults:
    """A link that fails in a read or a transaction, and leaves errors."""

    def __init__(self, db: Connection, *proxies: Proxy) -> None:
        self.db, self.proxies = db, proxies

    def cut(self, *, refuse: bool = False) -> None:
        for proxy in self.proxies:
            if refuse:
                proxy.refuse()
            proxy.cut()

    def connection_of_a_slave(self) -> None:
        with use_slave():
            run(self.db, "SELECT 1")
            self.cut()
            run(self.db, "SELECT 1")

    def all_servers(self) -> None:
        with use_slave():
            run(self.db, "SELECT 1")
            self.cut(refuse=True)
            with suppress(NoServerError):
                run(self.db, "SELECT 1")

    def master_in_a_write(self) -> None:
        with use_master():
            run(self.db, "SELECT 1")
            self.cut(refuse=True)
            with suppress(self.db.Error, NoServerError):
                insert(self.db)

    def slave_in_a_transaction(self) -> None:
        self._in_a_transaction(use_slave)

    def master_in_a_transaction(self) -> None:
        self._in_a_transaction(use_master)

    def _in_a_transaction(self, use: Callable[[], Any]) -> None:
        for end in (self.db.commit, self.db.rollback):
            with use():
                self.db.begin()
                run(self.db, "SELECT 1")
                self.cut()
                for _ in range(2):
                    with suppress(self.db.Error):
                        run(self.db, "SELECT 1")
                with suppress(self.db.Error):
                    end()


@pytest.mark.parametrize(
    "fault",
    [
        "connection_of_a_slave",
        "all_servers",
        "master_in_a_write",
        "slave_in_a_transaction",
        "master_in_a_transaction",
    ],
)
def test_f1_lost_links_are_closed_without_the_garbage_collector(
    make: Make, pair: MariaDBPair, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # a log record that pytest keeps holds the error, and that its frames
    gc.collect()
    before = sum(type(each) is LeasedLink for each in gc.get_objects())
    gc.disable()
    try:
        with Proxy(pair.master["port"]) as master, Proxy(pair.slaves[0]["port"]) as slave:
            db = make(
                master={**pair.master, "port": master.port},
                slaves=[{**pair.slaves[0], "port": slave.port}],
                downtime=0.01,
            )
            for _ in range(3):
                getattr(Faults(db, master, slave), fault)()
                master.restore()
                slave.restore()
            db.close()
        assert sum(type(each) is LeasedLink for each in gc.get_objects()) <= before
    finally:
        gc.enable()
