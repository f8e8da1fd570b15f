"""On real servers only: killed links, result sets that wrote, procedures, deadlocks, forks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.cursors import DictCursor, SSCursor
from tests.ended_links import kill, killed_while_it_sleeps, while_it_sleeps

import replswitch
from replswitch import MASTER, SLAVE, Connection, NoServerError, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.state import Frame
from replswitch.testing import MariaDBPair
from replswitch.testing.sessions import SessionPair

if TYPE_CHECKING:
    from tests.conftest import Served

Make = Callable[..., Connection]


drivers = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)
# The differences with mysqlclient are in test_mysqlclient.py.
servers = pytest.mark.parametrize("served", ["mariadb", "mysql"], indirect=True)
# Writes on MySQL are in test_mysql.py. A pair of its own for one test would take seconds there.
mariadb = pytest.mark.parametrize("served", ["mariadb"], indirect=True)


@pytest.fixture(autouse=True)
def pair(served: Served, make: Make) -> SessionPair:
    """The pair, with a table whose rows get their numbers from the server."""
    assert isinstance(served.pair, SessionPair)
    with served.pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE message")
        cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(100))")
    served.pair.wait_caught_up()
    return served.pair


def procedure(db: Connection, name: str, body: str) -> None:
    run(db, f"DROP PROCEDURE IF EXISTS {name}")
    run(db, f"CREATE PROCEDURE {name}() BEGIN {body} END")


def run(db: Connection, sql: str, *kind: Any) -> Any:
    with db.cursor(*kind) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def link_id(db: Connection) -> int:
    return int(run(db, "SELECT CONNECTION_ID()")[0][0])


def wrote(frame: Frame) -> bool:
    return frame.scope.wrote is not None


@servers
class TestClosedLinks:
    def test_a_link_closed_while_in_the_pool_is_replaced(self, db: Connection, pair: SessionPair) -> None:
        with db.use_slave():
            number = link_id(db)
        kill(pair, "slave", number)
        with db.use_slave():
            assert link_id(db) != number

    def test_s7_a_replaced_slave_link_refuses_writes(self, make: Make, pair: SessionPair) -> None:
        db = make(slaves=[], on_slave_write="error")
        with db.use_slave():
            kill(pair, "master", link_id(db))
            with pytest.raises(SlaveWriteError, match="1792"):
                run(db, "INSERT INTO message (body) VALUES ('x')")

    def test_s7_ping_does_not_reconnect(self, pair: SessionPair) -> None:
        with closing(load_driver("pymysql").open(pair.master, read_only=True)) as raw:
            kill(pair, "master", raw.thread_id())
            with pytest.raises(pymysql.Error):
                raw.ping(reconnect=True)

    def test_a_link_killed_in_a_transaction_raises_until_the_rollback(self, db: Connection, pair: SessionPair) -> None:
        db.begin()
        run(db, "INSERT INTO message (body) VALUES ('x')")
        kill(pair, "master", link_id(db))
        for _ in range(2):  # nothing runs outside the transaction that the application believes to be in
            with pytest.raises(db.OperationalError):
                run(db, "INSERT INTO message (body) VALUES ('y')")
        with pytest.raises(db.OperationalError):
            db.commit()
        assert run(db, "SELECT COUNT(*) FROM message") == ((0,),)

    def test_m1_a_write_whose_connection_is_killed_is_recorded(self, db: Connection, pair: SessionPair) -> None:
        with db.use_master() as frame:
            number = link_id(db)
            with killed_while_it_sleeps(pair, "master", number) as sleep, pytest.raises(db.OperationalError):
                run(db, f"INSERT INTO message (body) SELECT {sleep}")
            assert wrote(frame)


@mariadb
class TestRecordedWrites:
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO message (body) VALUES ('x')",
            "INSERT INTO message (body) VALUES ('x') RETURNING id",
            "CREATE TABLE other (id INT)",
        ],
    )
    @pytest.mark.parametrize("kind", [None, DictCursor, SSCursor], ids=["Cursor", "DictCursor", "SSCursor"])
    def test_m1_a_statement_that_writes_is_recorded(self, db: Connection, sql: str, kind: Any) -> None:
        with db.use_master() as frame:
            run(db, "DROP TABLE IF EXISTS other")
            frame.scope.wrote = None
            run(db, sql, *([kind] if kind else []))
            assert wrote(frame)

    @pytest.mark.parametrize(
        "sql", ["SELECT COUNT(*) FROM message", "UPDATE message SET body = 'x' WHERE id = 9", "SET @a = 1", "USE shop"]
    )
    def test_m1_a_statement_that_writes_nothing_is_not_recorded(self, db: Connection, sql: str) -> None:
        with db.use_master() as frame:
            run(db, sql)
            assert not wrote(frame)

    def test_m1_a_write_with_a_streamed_result_is_recorded_after_its_last_row(self, db: Connection) -> None:
        with db.use_master() as frame, db.cursor(SSCursor) as cursor:
            cursor.execute("INSERT INTO message (body) VALUES ('x'), ('y') RETURNING id")
            assert cursor.fetchone() is not None
            assert not wrote(frame)
            assert len(list(cursor)) == 1
            assert wrote(frame)

    def test_m1_a_procedure_that_writes_after_its_rows_is_recorded(self, db: Connection) -> None:
        procedure(db, "post", "SELECT 1; INSERT INTO message (body) VALUES ('p');")
        with db.use_master() as frame:
            with db.cursor() as cursor:
                cursor.callproc("post")
                assert cursor.fetchall() == ((1,),)
                cursor.nextset()
            assert wrote(frame)

    def test_p3_without_a_binary_log_every_transaction_counts_as_a_write(self, make: Make, pair: SessionPair) -> None:
        # A session that does not log moves no position, as a server without binary log.
        with pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"GRANT BINLOG ADMIN ON *.* TO '{pair.master['user']}'@'%'")
        db = make(master={**pair.master, "init_command": "SET SESSION sql_log_bin = 0"})
        with db.use_master() as frame:
            db.begin()
            run(db, "SELECT 1")
            assert not wrote(frame)
            db.commit()
            assert wrote(frame)


@servers
class TestRefusedWrites:
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO message (body) VALUES ('x')",
            "UPDATE message SET body = 'x'",
            "CREATE TABLE other (id INT)",
            "CREATE TEMPORARY TABLE other (id INT)",
            "SELECT * FROM message FOR UPDATE",
        ],
    )
    @pytest.mark.parametrize("slaves", [None, []], ids=["with a slave", "without slaves"])
    def test_s8_every_kind_of_write_moves_to_the_master(self, make: Make, sql: str, slaves: Any) -> None:
        db = make() if slaves is None else make(slaves=slaves)
        run(db, "DROP TABLE IF EXISTS other")
        db.reset_queries()
        with db.use_slave():
            run(db, sql)
        assert [query["db"] for query in db.queries] == [SLAVE, MASTER]
        run(db, "DROP TABLE IF EXISTS other")

    def test_s8_a_procedure_that_writes_after_rows_raises_and_does_not_move(
        self, db: Connection, pair: SessionPair
    ) -> None:
        procedure(db, "post", "SELECT 1; INSERT INTO message (body) VALUES ('p');")
        pair.wait_caught_up()
        with db.use_slave():
            cursor = db.cursor()
            cursor.callproc("post")
            assert cursor.fetchall() == ((1,),)
            with pytest.raises(SlaveWriteError, match="already returned rows"):
                cursor.nextset()
            cursor.callproc("post")
            with pytest.raises(SlaveWriteError, match="already returned rows"):
                run(db, "SELECT 1")  # the unread results of the procedure come first
        assert run(db, "SELECT COUNT(*) FROM message") == ((0,),)

    def test_s8_a_read_only_transaction_on_the_master_raises_the_server_s_error(self, db: Connection) -> None:
        run(db, "START TRANSACTION READ ONLY")
        with pytest.raises(db.OperationalError, match="1792"):
            run(db, "INSERT INTO message (body) VALUES ('x')")
        db.rollback()

    def test_s8_a_transaction_that_has_read_nothing_moves_with_its_write(self, db: Connection) -> None:
        with db.use_slave():
            db.begin()
            run(db, "DO 1")
            run(db, "INSERT INTO message (body) VALUES ('x')")
            db.commit()
        assert run(db, "SELECT COUNT(*) FROM message") == ((1,),)


@servers
class TestTransactions:
    def test_ddl_commits_the_open_transaction(self, db: Connection) -> None:
        run(db, "DROP TABLE IF EXISTS other")
        with use_master():
            db.begin()
            run(db, "INSERT INTO message (body) VALUES ('x')")
            run(db, "CREATE TABLE other (id INT)")
            db.rollback()
            run(db, "DROP TABLE other")
        assert run(db, "SELECT COUNT(*) FROM message") == ((1,),)

    def test_s5_a_transaction_ended_by_a_deadlock_raises_until_the_rollback(self, db: Connection) -> None:
        run(db, "INSERT INTO message (id) VALUES (1), (2)")
        locked, errors = threading.Barrier(2), []

        def work(first: int, second: int) -> None:
            db.begin()
            run(db, f"UPDATE message SET body = 'x' WHERE id = {first}")
            locked.wait(10)
            try:
                run(db, f"UPDATE message SET body = 'x' WHERE id = {second}")
            except pymysql.OperationalError as error:
                errors.append(error)
                with pytest.raises(pymysql.OperationalError, match="1213"):
                    run(db, "INSERT INTO message (id) VALUES (3)")
            db.rollback()

        threads = [threading.Thread(target=work, args=order) for order in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [error.args[0] for error in errors] == [1213]
        assert run(db, "SELECT COUNT(*) FROM message") == ((2,),)


class TestServersThatAreDown:
    @servers
    def test_f1_reads_go_to_the_master_while_the_slave_is_down(
        self, db: Connection, pair: SessionPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        pair.kill("slave")
        with db.use_slave():
            run(db, "SELECT 1")
            run(db, "SELECT 1")
        assert [query["reason"] for query in db.queries] == ["no-slave", "no-slave"]
        assert caplog.text.count("is not available") == 1

    @servers
    def test_f1_a_read_whose_slave_dies_runs_again_on_the_master(self, db: Connection, pair: SessionPair) -> None:
        # django-multidb-router: slave killed, 300 of 300 GETs fail.
        with db.use_slave():
            with while_it_sleeps(pair, "slave", link_id(db), partial(pair.kill, "slave")) as sleep:
                assert run(db, f"SELECT {sleep}") == ((0,),)
            run(db, "SELECT 1")
        assert [query["db"] for query in db.queries] == [SLAVE, SLAVE, MASTER, MASTER]
        assert db.queries[-1]["reason"] == "no-slave"

    @servers
    def test_f1_a_read_in_a_transaction_on_a_lost_slave_does_not_run_again(
        self, db: Connection, pair: SessionPair
    ) -> None:
        with db.use_slave():
            db.begin()
            run(db, "SELECT 1")
            pair.kill("slave")
            for _ in range(2):
                with pytest.raises(db.OperationalError):
                    run(db, "SELECT 1")
            db.rollback()
            assert run(db, "SELECT 1") == ((1,),)

    @servers
    def test_f2_a_restarted_slave_serves_after_downtime(self, make: Make, pair: SessionPair) -> None:
        # django-replicated: 4 s after the slave's return no read is on it.
        db = make(downtime=0.5)
        with db.use_slave():
            run(db, "SELECT 1")
        pair.kill("slave")
        with db.use_slave():
            run(db, "SELECT 1")
        pair.start("slave")
        time.sleep(0.5)
        with db.use_slave():
            run(db, "SELECT 1")
        assert [query["db"] for query in db.queries] == [SLAVE, MASTER, SLAVE]

    @servers
    def test_f3_without_a_master_reads_continue_and_writes_raise(self, db: Connection, pair: SessionPair) -> None:
        pair.kill("master")
        with db.use_slave():
            assert run(db, "SELECT 1") == ((1,),)
        with pytest.raises(NoServerError, match=f"{pair.master['port']} cannot be reached") as caught:
            run(db, "INSERT INTO message (body) VALUES ('x')")
        assert caught.value.server == f"127.0.0.1:{pair.master['port']}"

    @servers
    def test_f4_a_slave_that_refuses_the_password_is_out_of_rotation(
        self, make: Make, pair: SessionPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        db = make(slaves=[{**pair.slaves[0], "password": "wrong"}])
        for _ in range(3):
            with db.use_slave():
                assert run(db, "SELECT 1") == ((1,),)
        assert [query["db"] for query in db.queries] == [MASTER] * 3
        assert len([record for record in caplog.records if "out of rotation" in record.message]) == 1

    @mariadb
    def test_s6_one_slave_serves_all_reads_of_a_scope(self) -> None:
        # django-multidb-router: three reads in a request, three servers, torn pages.
        with MariaDBPair(slaves=2) as pair:
            db = replswitch.connect(pair.master, pair.slaves, debug=True)
            used = set()
            for _ in range(20):
                db.reset_queries()
                with db.use_slave():
                    for _ in range(3):
                        run(db, "SELECT 1")
                servers = {query["server"] for query in db.queries}
                assert len(servers) == 1
                used |= servers
            assert len(used) == 2
            db.close()


@drivers
class TestLinksWithEachDriver:
    @pytest.mark.parametrize(("server", "use"), [("master", use_master), ("slave", use_slave)])
    def test_a_link_that_the_server_closed_while_idle_is_replaced(
        self, db: Connection, pair: SessionPair, server: str, use: Any
    ) -> None:
        with use():
            number = link_id(db)
            kill(pair, server, number)
            assert link_id(db) != number

    def test_s11_a_link_with_autocommit_off_is_not_used_by_another_scope(self, db: Connection) -> None:
        with db.use_slave():
            number = link_id(db)
            run(db, "SET SESSION autocommit = 0")
        with db.use_slave():
            assert link_id(db) != number

    def test_s12_a_forked_child_opens_its_own_links_and_leaves_those_of_the_parent_open(self, db: Connection) -> None:
        with db.use_slave():
            pooled = link_id(db)
        with db.use_master():
            held = link_id(db)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    fine = link_id(db) != held
                    with db.use_slave():
                        fine = fine and link_id(db) != pooled
                    status = 0 if fine else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert link_id(db) == held
        with db.use_slave():
            assert link_id(db) == pooled
