"""connect(): a DB-API connection that follows its switch. Every test runs on MariaDB and on SQLite."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from replswitch import MASTER, SLAVE, Connection, ReplSwitchError, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.request.decide import decide
from replswitch.scope import Scope
from replswitch.state import instruction, push
from replswitch.testing import ReplicatedPair

Make = Callable[..., Connection]

COUNT = "SELECT COUNT(*) FROM message"

# mysqlclient does not show whether a transaction is open.
unless_unseen = pytest.mark.parametrize("served", ["mariadb", "mysql", "sqlite"], indirect=True)


def insert(db: Connection, number: int) -> None:
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message (id, body) VALUES ({number}, 'hello')")


def count(db: Connection) -> int:
    with db.cursor() as cursor:
        cursor.execute(COUNT)
        (number,) = cursor.fetchone()
        return int(number)


def sides(db: Connection) -> list[str]:
    return [query["db"] for query in db.queries]


class TestSides:
    def test_s6_the_state_decides_at_execute(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        count(db)
        with db.use_slave():
            count(db)
            with db.use_master():
                count(db)
            count(db)
        assert sides(db) == [MASTER, SLAVE, MASTER, SLAVE]
        servers = [query["server"] for query in db.queries]
        assert servers[0] == servers[2] != servers[1] == servers[3]

    def test_a_cursor_made_before_the_switch_follows_it(self, db: Connection) -> None:
        with db.cursor() as cursor:
            cursor.execute(COUNT)
            db.use_slave()
            cursor.execute(COUNT)
            db.revert()
        assert sides(db) == [MASTER, SLAVE]

    def test_s6_a_cursor_fetches_from_the_link_it_executed_on(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        insert(db, 1)
        with db.cursor() as cursor:
            with db.use_slave():
                cursor.execute(COUNT)
            assert cursor.fetchone()[0] == 0
        assert count(db) == 1

    def test_s4_decorators_switch_every_database(self, make: Make) -> None:
        one, two = make(), make()

        @use_slave
        def read() -> None:
            count(one)
            count(two)
            with one.use_master():
                count(one)

        read()
        assert sides(one) == [SLAVE, MASTER]
        assert sides(two) == [SLAVE]

    # The lag is the pair's, and takes its time: a second driver would show nothing new.
    @pytest.mark.parametrize("served", ["mariadb", "mysql", "sqlite"], indirect=True)
    def test_a_slave_really_lags(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.lag = 1
        insert(db, 1)
        with db.use_slave():
            assert count(db) == 0
        replicated_pair.wait_caught_up()
        with db.use_slave():
            assert count(db) == 1

    def test_s10_without_slaves_a_read_only_link_to_the_master_serves_slave_state(self, make: Make) -> None:
        db = make(slaves=[])
        insert(db, 1)
        with db.use_slave():
            assert count(db) == 1
            assert sides(db)[-1] == SLAVE
            insert(db, 2)
        assert sides(db)[-2:] == [SLAVE, MASTER]  # refused, and moved

    def test_disabled_switching_stays_on_the_master(self, db: Connection) -> None:
        db.state_change_disabled = True
        with db.use_slave():
            count(db)
        db.state_change_disabled = False
        assert sides(db) == [MASTER]

    def test_what_a_slave_leaves_out_is_the_master_s(self, make: Make, replicated_pair: ReplicatedPair) -> None:
        (slave,) = replicated_pair.slaves
        only_where = {key: slave[key] for key in ("host", "port", "database") if key in slave}
        if replicated_pair.driver == "pymysql":
            del only_where["database"]
        db = make(slaves=[only_where])
        with db.use_slave():
            count(db)
        assert sides(db) == [SLAVE]


class TestSlaveWrites:
    """Rule S8."""

    def test_s8_a_write_moves_with_one_warning_that_names_the_place(
        self, db: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        with db.use_slave():
            insert(db, 1)
            insert(db, 2)
            assert count(db) == 2
        assert sides(db) == [SLAVE, MASTER, MASTER, MASTER]
        (record,) = [record for record in caplog.records if "moved to the master" in record.message]
        assert record.levelno == logging.WARNING
        assert "test_connection.py:" in record.message
        assert "in insert" in record.message
        assert "had not read" in record.message

    def test_the_warning_says_that_the_scope_had_read(self, db: Connection, caplog: pytest.LogCaptureFixture) -> None:
        with db.use_slave():
            count(db)
            insert(db, 1)
        assert "had read" in caplog.text

    def test_the_next_scope_reads_from_the_slave_again(self, db: Connection) -> None:
        with db.use_slave():
            insert(db, 1)
        with db.use_slave():
            count(db)
        assert sides(db)[-1] == SLAVE

    def test_error_is_raised_when_that_is_wanted(self, make: Make) -> None:
        db = make(on_slave_write="error")
        with db.use_slave(), pytest.raises(SlaveWriteError, match=r"test_connection\.py:\d+ in insert") as caught:
            insert(db, 1)
        assert caught.value.server == db.queries[-1]["server"]
        assert caught.value.__cause__ is not None
        assert count(db) == 0

    def test_s8_a_transaction_that_has_read_nothing_moves_as_a_whole(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            insert(db, 1)
            assert count(db) == 1
            db.rollback()
            assert count(db) == 0
        assert sides(db) == [SLAVE, MASTER, MASTER, MASTER]

    def test_s8_a_write_after_a_read_of_its_transaction_raises(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            count(db)
            with pytest.raises(SlaveWriteError, match="has read from the slave"):
                insert(db, 1)
            db.rollback()
        assert count(db) == 0

    def test_executemany_is_moved(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        mark = "%s" if replicated_pair.driver == "pymysql" else "?"
        with db.use_slave(), db.cursor() as cursor:
            cursor.executemany(f"INSERT INTO message (id, body) VALUES ({mark}, {mark})", [(1, "a"), (2, "b")])
        assert count(db) == 2

    def test_ddl_is_moved(self, db: Connection) -> None:
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS moved_ddl (id INTEGER)")
            cursor.execute("DROP TABLE moved_ddl")
        assert sides(db) == [SLAVE, MASTER, MASTER]

    def test_an_error_of_the_application_is_its_own(self, db: Connection) -> None:
        insert(db, 1)
        with pytest.raises(db.IntegrityError):
            insert(db, 1)
        with db.use_slave(), pytest.raises(db.Error), db.cursor() as cursor:
            cursor.execute("SELECT FROM WHERE")
        assert sides(db)[-1] == SLAVE


class TestOwnWrites:
    def test_after_a_write_the_master_serves_the_rest_of_the_scope(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        with use_master():
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
        assert db.queries[-1]["reason"] == "own-write"

    def test_a_write_that_changed_nothing_is_none(self, db: Connection) -> None:
        with use_master():
            with db.cursor() as cursor:
                cursor.execute("UPDATE message SET body = 'x' WHERE id = 77")
            with db.use_slave():
                count(db)
        assert sides(db)[-1] == SLAVE

    def test_a_rolled_back_write_is_none(self, db: Connection) -> None:
        with use_master():
            db.begin()
            insert(db, 1)
            db.rollback()
            with db.use_slave():
                assert count(db) == 0
        assert sides(db)[-1] == SLAVE

    def test_a_commit_is_recorded(self, db: Connection) -> None:
        with use_master(), db.use_master() as frame:
            db.begin()
            insert(db, 1)
            assert frame.scope.all_written() is None
            db.commit()
            assert frame.scope.all_written() is not None

    def test_one_database_s_write_does_not_bind_another(self, make: Make) -> None:
        one, two = make(), make(name="another")
        with use_slave():
            insert(one, 1)
            count(two)
        assert sides(two) == [SLAVE]


class TestTransactions:
    """Rule S5: one block, one outcome."""

    def test_commit_and_rollback(self, db: Connection) -> None:
        db.begin()
        insert(db, 1)
        db.rollback()
        assert count(db) == 0
        db.begin()
        insert(db, 1)
        db.commit()
        assert count(db) == 1

    def test_s5_a_link_joins_with_its_first_statement(self, db: Connection) -> None:
        db.begin()
        with db.use_slave():
            count(db)
        insert(db, 1)
        with db.use_slave():
            assert count(db) == 1  # the master is in: it serves the rest
        assert sides(db) == [SLAVE, MASTER, MASTER]
        assert db.queries[-1]["reason"] == "transaction"
        db.rollback()
        assert count(db) == 0

    def test_deciding_for_the_master_before_the_first_query_never_opens_one_on_the_slave(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            with db.use_master():
                insert(db, 1)
            assert count(db) == 1
            db.commit()
        assert sides(db) == [MASTER, MASTER]

    def test_the_block_outlives_the_scope_it_was_begun_in(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            count(db)
        insert(db, 1)
        db.commit()
        assert count(db) == 1

    def test_autocommit_off_begins_by_itself(self, make: Make) -> None:
        db = make(autocommit=False)
        assert db.get_autocommit() is False
        insert(db, 1)
        db.rollback()
        assert count(db) == 0
        insert(db, 1)
        db.commit()
        db.rollback()
        assert count(db) == 1

    def test_autocommit_can_be_changed_between_transactions(self, db: Connection) -> None:
        db.autocommit(False)
        insert(db, 1)
        with pytest.raises(db.ProgrammingError, match="inside a transaction"):
            db.autocommit(True)
        db.rollback()
        db.autocommit(True)
        assert count(db) == 0

    def test_begin_inside_a_transaction_is_an_error_and_commits_nothing(self, db: Connection) -> None:
        db.begin()
        insert(db, 1)
        with pytest.raises(db.ProgrammingError, match="inside a transaction"):
            db.begin()
        db.rollback()
        assert count(db) == 0

    @unless_unseen
    def test_one_begun_by_a_statement_is_followed(self, db: Connection) -> None:
        with db.cursor() as cursor:
            cursor.execute("BEGIN")
            insert(db, 1)
            with db.use_slave():
                assert count(db) == 1
            cursor.execute("ROLLBACK")
        assert count(db) == 0
        with db.use_slave():
            count(db)
        assert sides(db)[-1] == SLAVE

    @unless_unseen
    def test_one_ended_by_a_statement_is_followed(self, db: Connection) -> None:
        db.begin()
        insert(db, 1)
        with db.cursor() as cursor:
            cursor.execute("COMMIT")
        insert(db, 2)
        db.rollback()
        assert count(db) == 2

    def test_nothing_to_commit_is_no_error(self, db: Connection) -> None:
        db.commit()
        db.rollback()


class TestScopes:
    """Links and transactions of a request."""

    def test_one_left_open_by_a_request_is_rolled_back(self, db: Connection, caplog: pytest.LogCaptureFixture) -> None:
        with request_scope():
            db.begin()
            insert(db, 1)
        assert "ended in an open transaction" in caplog.text
        assert count(db) == 0
        assert db.get_autocommit()

    def test_whoever_goes_on_in_it_is_told(self, db: Connection) -> None:
        begun, ended = threading.Event(), threading.Event()
        scope = request_scope()

        def work() -> None:
            with push(instruction(MASTER, scope.scope)):
                db.begin()
                insert(db, 1)
                begun.set()
                ended.wait(10)
                with pytest.raises(ReplSwitchError, match="has ended"):
                    insert(db, 2)
                with pytest.raises(ReplSwitchError, match="has ended"):
                    db.commit()

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            begun.wait(10)
            scope.end()
            ended.set()
            future.result()
        assert count(db) == 0

    def test_autocommit_is_back_behind_a_request(self, db: Connection) -> None:
        with request_scope():
            db.autocommit(False)
        assert db.get_autocommit()

    def test_links_go_back_to_the_pool_and_are_used_again(self, db: Connection) -> None:
        raws = []
        for _ in range(3):
            with db.use_slave(), db.cursor() as cursor:
                cursor.execute(COUNT)
                raws.append(cursor.connection)
        assert raws[0] is raws[1] is raws[2]

    def test_an_open_cursor_keeps_its_link(self, db: Connection) -> None:
        with db.use_slave():
            cursor = db.cursor()
            cursor.execute(COUNT)
        with db.use_slave(), db.cursor() as other:
            other.execute(COUNT)
            assert other.connection is not cursor.connection
        assert cursor.fetchone()[0] == 0
        cursor.close()


class TestThreadsAndTasks:
    def test_threads_have_links_of_their_own(self, db: Connection) -> None:
        barrier = threading.Barrier(4)

        def work(number: int) -> Any:
            with db.use_slave() if number % 2 else db.use_master(), db.cursor() as cursor:
                cursor.execute(COUNT)
                barrier.wait(10)
                return db.queries[-1]["db"], cursor.connection

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, range(4)))
        assert [side for side, _ in results] == [MASTER, SLAVE, MASTER, SLAVE]
        assert len({id(raw) for _, raw in results}) == 4

    def test_tasks_have_links_and_transactions_of_their_own(self, db: Connection) -> None:
        async def work(number: int) -> None:
            db.begin()
            insert(db, number)
            await asyncio.sleep(0.01)
            if number % 2:
                db.commit()
            else:
                db.rollback()

        async def main() -> None:
            if db.IntegrityError.__module__ == "sqlite3":  # one writer at a time
                for number in range(4):
                    await asyncio.create_task(work(number))
            else:
                await asyncio.gather(*map(work, range(4)))

        asyncio.run(main())
        assert count(db) == 2

    def test_queries_are_the_thread_s_own(self, db: Connection) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(count, db).result()
        assert db.queries == []


class TestDBAPI:
    def test_parameters_rowcount_description(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        mark = "%s" if replicated_pair.driver == "pymysql" else "?"
        with db.cursor() as cursor:
            assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
            cursor.execute(f"INSERT INTO message (id, body) VALUES ({mark}, {mark})", (7, "it's"))
            assert cursor.rowcount == 1
            cursor.execute("SELECT id, body FROM message")
            assert [column[0] for column in cursor.description] == ["id", "body"]
            assert list(cursor) == [(7, "it's")]

    def test_fetching(self, db: Connection) -> None:
        for number in range(5):
            insert(db, number)
        with db.cursor() as cursor:
            cursor.arraysize = 2
            cursor.execute("SELECT id FROM message ORDER BY id")
            assert cursor.arraysize == 2
            assert list(cursor.fetchmany()) == [(0,), (1,)]
            assert cursor.fetchone() == (2,)
            assert list(cursor.fetchall()) == [(3,), (4,)]
            assert cursor.fetchone() is None
            assert not cursor.nextset()

    def test_fetching_before_executing_says_so(self, db: Connection) -> None:
        with pytest.raises(db.ProgrammingError, match="has not executed"):
            db.cursor().fetchone()

    def test_a_closed_connection_says_so(self, make: Make) -> None:
        db = make()
        count(db)
        cursor = db.cursor()
        with db:
            pass
        with pytest.raises(db.InterfaceError, match="closed"):
            db.cursor()
        with pytest.raises(db.InterfaceError, match="closed"):
            cursor.execute(COUNT)
        with pytest.raises(db.InterfaceError, match="closed"):
            db.begin()
        db.close()

    def test_exceptions_are_attributes(self, db: Connection) -> None:
        assert issubclass(db.OperationalError, db.DatabaseError)
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            db.nonsense  # noqa: B018 - looking is what fails

    def test_queries(self, db: Connection) -> None:
        count(db)
        (query,) = db.queries
        assert query["sql"] == COUNT
        assert query["time"] > 0
        assert query["reason"] == "default"
        db.reset_queries()
        db.debug = False
        count(db)
        assert db.queries == []


class request_scope:  # noqa: N801 - reads as the context manager that it is
    """What the middleware does around a request."""

    def __init__(self) -> None:
        self.scope = Scope()
        self.scope.decision = decide("POST")
        self.frame = instruction(MASTER, self.scope)

    def __enter__(self) -> Scope:
        push(self.frame)
        return self.scope

    def __exit__(self, *_: object) -> None:
        self.frame.__exit__(None, None, None)

    def end(self) -> None:
        self.frame.end()


def test_errors_of_ours_have_one_root() -> None:
    assert issubclass(SlaveWriteError, ReplSwitchError)
