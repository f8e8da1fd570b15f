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
unless_unseen = pytest.mark.parametrize("served", ["mariadb", "mysql", "postgresql", "sqlite"], indirect=True)


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
    def test_s6_the_state_at_execute_chooses_the_server(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        count(db)
        with db.use_slave():
            count(db)
            with db.use_master():
                count(db)
            count(db)
        assert sides(db) == [MASTER, SLAVE, MASTER, SLAVE]
        servers = [query["server"] for query in db.queries]
        assert servers[0] == servers[2] != servers[1] == servers[3]

    def test_a_cursor_made_before_a_switch_uses_the_new_state(self, db: Connection) -> None:
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
    @pytest.mark.parametrize("served", ["mariadb", "mysql", "postgresql", "sqlite"], indirect=True)
    def test_a_connection_reads_a_lagging_slave_and_then_its_new_rows(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.lag = 60
        insert(db, 1)
        with db.use_slave():
            assert count(db) == 0
        replicated_pair.lag = 0
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

    def test_settings_that_a_slave_leaves_out_are_those_of_the_master(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
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

    def test_s8_a_write_moves_with_one_warning_that_names_the_line_of_the_application(
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

    def test_s8_the_warning_says_that_the_scope_had_read_from_a_slave(
        self, db: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        with db.use_slave():
            count(db)
            insert(db, 1)
        assert "had read" in caplog.text

    def test_s8_the_next_scope_after_a_moved_write_reads_from_the_slave(self, db: Connection) -> None:
        with db.use_slave():
            insert(db, 1)
        with db.use_slave():
            count(db)
        assert sides(db)[-1] == SLAVE

    def test_s8_on_slave_write_error_raises_instead_of_moving(self, make: Make) -> None:
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

    def test_s8_executemany_moves_to_the_master(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        mark = "%s" if replicated_pair.driver != "sqlite3" else "?"
        with db.use_slave(), db.cursor() as cursor:
            cursor.executemany(f"INSERT INTO message (id, body) VALUES ({mark}, {mark})", [(1, "a"), (2, "b")])
        assert count(db) == 2

    def test_s8_ddl_moves_to_the_master(self, db: Connection) -> None:
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS moved_ddl (id INTEGER)")
            cursor.execute("DROP TABLE moved_ddl")
        assert sides(db) == [SLAVE, MASTER, MASTER]

    def test_s8_a_failing_read_on_a_slave_raises_its_error_and_does_not_move(self, db: Connection) -> None:
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

    def test_m1_an_update_that_changes_no_row_is_not_recorded(self, db: Connection) -> None:
        with use_master():
            with db.cursor() as cursor:
                cursor.execute("UPDATE message SET body = 'x' WHERE id = 77")
            with db.use_slave():
                count(db)
        assert sides(db)[-1] == SLAVE

    def test_m1_a_write_that_was_rolled_back_is_not_recorded(self, db: Connection) -> None:
        with use_master():
            db.begin()
            insert(db, 1)
            db.rollback()
            with db.use_slave():
                assert count(db) == 0
        assert sides(db)[-1] == SLAVE

    def test_m1_a_transaction_is_recorded_at_its_commit(self, db: Connection) -> None:
        with use_master(), db.use_master() as frame:
            db.begin()
            insert(db, 1)
            assert frame.scope.all_written() is None
            db.commit()
            assert frame.scope.all_written() is not None

    def test_a_write_to_one_database_leaves_reads_of_another_on_the_slave(self, make: Make) -> None:
        one, two = make(), make(name="another")
        with use_slave():
            insert(one, 1)
            count(two)
        assert sides(two) == [SLAVE]


class TestTransactions:
    """Rule S5: one block, one outcome."""

    def test_commit_keeps_and_rollback_drops_the_writes_of_a_transaction(self, db: Connection) -> None:
        db.begin()
        insert(db, 1)
        db.rollback()
        assert count(db) == 0
        db.begin()
        insert(db, 1)
        db.commit()
        assert count(db) == 1

    def test_s5_a_link_joins_the_transaction_with_its_first_statement(self, db: Connection) -> None:
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

    def test_s5_a_transaction_switched_to_the_master_before_its_first_query_begins_on_the_master_alone(
        self, db: Connection
    ) -> None:
        with db.use_slave():
            db.begin()
            with db.use_master():
                insert(db, 1)
            assert count(db) == 1
            db.commit()
        assert sides(db) == [MASTER, MASTER]

    def test_a_transaction_outlives_the_switched_block_in_which_it_began(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            count(db)
        insert(db, 1)
        db.commit()
        assert count(db) == 1

    def test_with_autocommit_off_the_first_statement_begins_a_transaction(self, make: Make) -> None:
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
    def test_s5_a_transaction_begun_by_a_statement_is_recognised(self, db: Connection) -> None:
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
    def test_s5_a_transaction_ended_by_a_statement_is_recognised(self, db: Connection) -> None:
        db.begin()
        insert(db, 1)
        with db.cursor() as cursor:
            cursor.execute("COMMIT")
        insert(db, 2)
        db.rollback()
        assert count(db) == 2

    def test_commit_and_rollback_without_a_transaction_do_nothing(self, db: Connection) -> None:
        db.commit()
        db.rollback()


class TestScopes:
    """Links and transactions of a request."""

    def test_a_transaction_left_open_by_a_request_is_rolled_back_with_a_warning(
        self, db: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        with request_scope():
            db.begin()
            insert(db, 1)
        assert "ended with an open transaction" in caplog.text
        assert count(db) == 0
        assert db.get_autocommit()

    def test_a_thread_that_uses_a_transaction_of_an_ended_request_gets_an_error(self, db: Connection) -> None:
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

    def test_autocommit_turned_off_by_a_request_is_on_after_the_request(self, db: Connection) -> None:
        with request_scope():
            db.autocommit(False)
        assert db.get_autocommit()

    def test_links_return_to_the_pool_and_are_used_again(self, db: Connection) -> None:
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

    def test_each_thread_sees_its_own_queries(self, db: Connection) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(count, db).result()
        assert db.queries == []


class TestDBAPI:
    def test_a_cursor_has_parameters_rowcount_and_description(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        mark = "%s" if replicated_pair.driver != "sqlite3" else "?"
        with db.cursor() as cursor:
            assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
            cursor.execute(f"INSERT INTO message (id, body) VALUES ({mark}, {mark})", (7, "it's"))
            assert cursor.rowcount == 1
            cursor.execute("SELECT id, body FROM message")
            assert [column[0] for column in cursor.description] == ["id", "body"]
            assert list(cursor) == [(7, "it's")]

    def test_a_cursor_fetches_one_many_and_all_rows(self, db: Connection) -> None:
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

    def test_fetching_before_execute_is_an_error(self, db: Connection) -> None:
        with pytest.raises(db.ProgrammingError, match="has not executed"):
            db.cursor().fetchone()

    def test_using_a_closed_connection_is_an_error(self, make: Make) -> None:
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

    def test_the_exceptions_of_the_driver_are_attributes_of_the_connection(self, db: Connection) -> None:
        assert issubclass(db.OperationalError, db.DatabaseError)
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            db.nonsense  # noqa: B018 - looking is what fails

    def test_debug_keeps_each_query_with_its_time_and_reason(self, db: Connection) -> None:
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
    """Push a scope, as the middleware does around a request."""

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


def test_the_errors_of_replswitch_share_one_base_class() -> None:
    assert issubclass(SlaveWriteError, ReplSwitchError)
