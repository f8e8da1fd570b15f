"""connect() on real pairs that lag: a slave serves the scopes for which it has caught up, with few queries."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from replswitch import MASTER, SLAVE, Connection
from replswitch.decorators import use_master, use_slave
from replswitch.scope import Scope
from replswitch.state import stack
from replswitch.testing import ReplicatedPair

Make = Callable[..., Connection]

# For what takes seconds of lag: each server and each driver once. The questions, which are all that differs, the other
# tests here ask with all.
each_once = pytest.mark.parametrize("served", ["mariadb", "mysql-mysqlclient", "sqlite"], indirect=True)

COUNT = "SELECT COUNT(*) FROM message"


def insert(db: Connection, number: int) -> None:
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message (id, body) VALUES ({number}, 'hello')")


def count(db: Connection) -> int:
    with db.cursor() as cursor:
        cursor.execute(COUNT)
        return int(cursor.fetchone()[0])


def last(db: Connection) -> tuple[str, str]:
    """The side of the latest query, and the reason for it."""
    return db.queries[-1]["db"], db.queries[-1]["reason"]


def scope() -> Scope:
    """The running one."""
    frame = stack()
    assert frame is not None
    return frame.scope


def written() -> set[str]:
    """The databases of which the running scope has recorded positions."""
    wrote = scope().all_written()
    assert wrote is not None
    return set(wrote.positions)


class TestOwnWrites:
    """In a scope its own writes count: a slave serves its reads from the moment at which it has them."""

    def test_a_slave_without_the_own_write_does_not_serve(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        with use_master():
            with db.use_slave():
                assert count(db) == 0
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
        assert last(db) == (MASTER, "own-write")

    @each_once
    def test_a_slave_serves_again_once_it_has_the_own_write(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.lag = 60
        with use_master():
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
        assert last(db) == (MASTER, "own-write")
        with use_master():
            insert(db, 2)
            replicated_pair.lag = 0
            replicated_pair.wait_caught_up()
            with db.use_slave():
                assert count(db) == 2
        assert last(db) == (SLAVE, "use_slave")

    def test_a_slave_must_have_the_latest_own_write(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        with use_master():
            insert(db, 1)
            replicated_pair.wait_caught_up()
            replicated_pair.stop_slave()
            with db.use_slave():
                assert count(db) == 1
            assert last(db) == (SLAVE, "use_slave")
            insert(db, 2)
            with db.use_slave():
                assert count(db) == 2
        assert last(db) == (MASTER, "own-write")

    def test_the_next_scope_need_not_see_the_write(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        with use_master():
            insert(db, 1)
        with use_slave():
            assert count(db) == 0

    def test_a_transaction_counts_as_own_write_from_its_commit(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        with use_master():
            db.begin()
            insert(db, 1)
            db.rollback()
            with db.use_slave():
                assert count(db) == 0
            assert last(db) == (SLAVE, "use_slave")
            db.begin()
            insert(db, 1)
            db.commit()
            with db.use_slave():
                assert count(db) == 1
        assert last(db) == (MASTER, "own-write")

    def test_s10_without_slaves_every_position_counts_as_reached(self, make: Make) -> None:
        db = make(slaves=[])
        with use_master():
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
        assert last(db) == (SLAVE, "use_slave")

    def test_a_thread_in_the_same_scope_sees_an_own_write(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        """Its link was chosen before the write."""
        replicated_pair.stop_slave()
        read, written = threading.Event(), threading.Event()
        counts: list[int] = []

        def work() -> None:
            with db.use_slave():
                counts.append(count(db))
                read.set()
                written.wait(10)
                counts.append(count(db))

        with use_master():
            scope()
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            read.wait(10)
            insert(db, 1)
            written.set()
            thread.join()
        assert counts == [0, 1]


class TestTransactions:
    def test_a_write_after_the_begin_of_a_slave_transaction_is_read_on_the_master(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        # Another connection to the same database writes: the slave has it soon, but the transaction never will.
        db, other = make(), make()
        with use_slave():
            db.begin()
            assert count(db) == 0
            with use_master():
                insert(other, 1)
            replicated_pair.wait_caught_up()
            assert count(db) == 1
            assert last(db) == (MASTER, "own-write")
            db.commit()

    def test_wait_does_not_make_an_old_slave_snapshot_serve_a_later_write(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        # MASTER_GTID_WAIT inside a REPEATABLE READ transaction succeeds, and the row stays invisible.
        db, other = make(wait=5), make()
        with use_slave():
            db.begin()
            assert count(db) == 0
            with use_master():
                insert(other, 1)
            assert count(db) == 1
            db.commit()

    def test_a_transaction_begun_after_the_write_is_served_by_the_slave(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        with use_master():
            insert(db, 1)
            replicated_pair.wait_caught_up()
            db.begin()
            with db.use_slave():
                assert count(db) == 1
                assert count(db) == 1
            db.commit()
        assert last(db) == (SLAVE, "use_slave")

    def test_a_transaction_begun_by_a_statement_after_the_write_is_served_by_the_slave(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        with use_master():
            insert(db, 1)
            replicated_pair.wait_caught_up()
            with db.use_slave(), db.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(COUNT)
                cursor.execute(COUNT)
                cursor.execute("COMMIT")
        assert last(db) == (SLAVE, "use_slave")

    def test_a_slave_transaction_of_an_earlier_scope_does_not_hide_a_later_write(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        db, other = make(), make()
        with use_slave():
            db.begin()
            assert count(db) == 0
        with use_master():
            insert(other, 1)
            replicated_pair.wait_caught_up()
            with use_slave():
                assert count(db) == 1
        db.commit()


class TestWait:
    @each_once
    def test_a_read_waits_for_a_slave_that_reaches_the_position_in_time(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        db = make(wait=20)
        replicated_pair.lag = 1
        with use_master():
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
        assert last(db) == (SLAVE, "use_slave")

    def test_a_scope_waits_once_and_then_reads_on_the_master(
        self, make: Make, replicated_pair: ReplicatedPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db = make(wait=0.05)
        waits = []
        wait_for = db._driver.wait_for

        def noted(raw: Any, position: Any, seconds: float) -> bool:
            waits.append(seconds)
            return wait_for(raw, position, seconds)

        monkeypatch.setattr(db._driver, "wait_for", noted)
        replicated_pair.stop_slave()
        with use_master():
            insert(db, 1)
            for _ in range(3):
                with db.use_slave():
                    assert count(db) == 1
            insert(db, 2)
            with db.use_slave():
                assert count(db) == 2
        assert last(db) == (MASTER, "own-write")
        assert waits == [0.05]


class TestSeveralDatabases:
    def test_databases_of_different_names_have_separate_positions(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        one, two = make(name="one"), make(name="two")
        replicated_pair.stop_slave()
        with use_master():
            insert(one, 1)
            with use_slave():
                assert count(two) == 0
                assert count(one) == 1
            insert(two, 2)
            with use_slave():
                assert count(two) == 2
            assert written() == {"one", "two"}
