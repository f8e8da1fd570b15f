"""The drivers of PostgreSQL through connect(), beyond what holds for every driver."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import psycopg2.extras
import pytest
from tests.altered import altered
from tests.round_trips import RoundTrips

import replswitch
from replswitch import (
    MASTER,
    SLAVE,
    ConfigurationError,
    Connection,
    NoServerError,
    SlaveWriteError,
    carry,
    resume,
    unrecorded,
)
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import Driver, Fault, Written, load_driver
from replswitch.drivers.psycopg_questions import PREPARED_AFTER
from replswitch.positions import Position
from replswitch.testing import PostgreSQLPair, Proxy

if TYPE_CHECKING:
    from tests.test_core.conftest import Make

with_each = pytest.mark.parametrize("served", ["postgresql", "postgresql-psycopg2"], indirect=True)
with_psycopg = pytest.mark.parametrize("served", ["postgresql"], indirect=True)
with_psycopg2 = pytest.mark.parametrize("served", ["postgresql-psycopg2"], indirect=True)

PROCEDURE = """
CREATE OR REPLACE PROCEDURE put(first INT) LANGUAGE plpgsql AS $$
BEGIN INSERT INTO message VALUES (first); COMMIT; INSERT INTO message VALUES (first + 1); COMMIT; END $$
"""
FUNCTION = """
CREATE OR REPLACE FUNCTION add(number INT) RETURNS INT LANGUAGE sql AS
'INSERT INTO message VALUES (number) RETURNING id'
"""
COUNT = "SELECT COUNT(*) FROM message"


@pytest.fixture
def pair(replicated_pair: Any, make: Make) -> PostgreSQLPair:
    assert isinstance(replicated_pair, PostgreSQLPair)
    return replicated_pair


@pytest.fixture
def loaded(driver: Any) -> Driver:
    return load_driver(driver)


@pytest.fixture
def module(loaded: Driver) -> Any:
    return loaded.module


@pytest.fixture
def db(make: Make, pair: PostgreSQLPair) -> Connection:
    return make()


def run(db: Connection, sql: str, *values: object) -> list[Any]:
    with db.cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def side(db: Connection) -> str:
    return db.queries[-1]["db"]


def prepared(db: Connection, pair: PostgreSQLPair) -> None:
    with use_master():
        run(db, PROCEDURE)
        run(db, FUNCTION)
    pair.wait_caught_up()


@with_each
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO message VALUES (1)",
        "INSERT INTO message VALUES (1) RETURNING id",
        "WITH added AS (INSERT INTO message VALUES (1) RETURNING id) SELECT * FROM added",
        "SELECT add(1)",
        "SELECT 1; INSERT INTO message VALUES (1)",
        "DO $$ BEGIN INSERT INTO message VALUES (1); END $$",
        "BEGIN; INSERT INTO message VALUES (1); COMMIT",
        "CALL put(1)",
    ],
)
def test_m1_each_way_to_write_is_recorded_with_its_position(db: Connection, pair: PostgreSQLPair, sql: str) -> None:
    prepared(db, pair)
    pair.stop_slave()
    with resume(""), use_master():
        run(db, sql)
        token = carry()
    assert '"postgresql:' in token
    with resume(token), use_slave():
        assert run(db, COUNT) != [(0,)]
        assert side(db) == MASTER
    pair.start_slave()
    pair.wait_caught_up()
    with resume(token), use_slave():
        assert run(db, COUNT) != [(0,)]
        assert side(db) == SLAVE


@with_each
def test_m1_executemany_copy_and_stream_are_recorded(db: Connection, pair: PostgreSQLPair, module: Any) -> None:
    def many(cursor: Any) -> None:
        cursor.executemany("INSERT INTO message VALUES (%s)", [(1,), (2,)])

    def copy(cursor: Any) -> None:
        if module is psycopg2:
            cursor.execute("SELECT 1")
            cursor.copy_expert("COPY message (id) FROM STDIN", io.StringIO("3\n"))
            return
        with cursor.copy("COPY message (id) FROM STDIN") as rows:
            rows.write_row((3,))

    def stream(cursor: Any) -> None:
        assert list(cursor.stream("INSERT INTO message VALUES (4) RETURNING id")) == [(4,)]

    pair.stop_slave()
    for number, write in enumerate((many, copy, stream)[: 2 if module is psycopg2 else 3]):
        with resume(""), use_master(), db.cursor() as cursor:
            write(cursor)
            token = carry()
        with resume(token), use_slave():
            assert run(db, COUNT) == [(number + 2,)]


@with_each
@pytest.mark.parametrize("sql", ["SELECT 1", COUNT, "UPDATE message SET body = '' WHERE id = -1", "SHOW work_mem"])
def test_m1_what_writes_nothing_makes_no_marker(db: Connection, pair: PostgreSQLPair, sql: str) -> None:
    with resume(""), use_master():
        run(db, sql)
        db.begin()
        run(db, sql)
        db.commit()
        assert carry() == ""


@with_each
def test_m1_a_transaction_is_recorded_at_its_commit_however_it_ends(db: Connection, pair: PostgreSQLPair) -> None:
    def by_methods() -> None:
        db.begin()
        run(db, "INSERT INTO message VALUES (1)")
        assert carry() == ""
        db.commit()

    def by_statements() -> None:
        run(db, "BEGIN")
        run(db, "INSERT INTO message VALUES (2)")
        assert carry() == ""
        run(db, "COMMIT")

    pair.stop_slave()
    for number, write in enumerate((by_methods, by_statements), 1):
        with resume(""), use_master():
            write()
            token = carry()
        with resume(token), use_slave():
            assert run(db, COUNT) == [(number,)]
    with resume(""), use_master():
        db.begin()
        run(db, "INSERT INTO message VALUES (3)")
        db.rollback()
        assert carry() == ""


@with_each
def test_m1_a_deferred_constraint_that_fails_at_the_commit_raises(
    db: Connection, pair: PostgreSQLPair, module: Any
) -> None:
    with use_master():
        run(db, "DROP TABLE IF EXISTS late")
        run(db, "CREATE TABLE late (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        db.begin()
        run(db, "INSERT INTO late VALUES (1), (1)")
        with pytest.raises(module.errors.UniqueViolation):
            db.commit()
        assert run(db, "SELECT COUNT(*) FROM late") == [(0,)]
        run(db, "DROP TABLE late")


@with_each
@pytest.mark.parametrize("times", [1, 7], ids=["unprepared", "prepared"])
@pytest.mark.parametrize(
    "sql", ["INSERT INTO late VALUES (1), (1)", "SELECT add_late()"], ids=["by an INSERT", "by a function"]
)
def test_m1_a_deferred_constraint_that_fails_outside_a_transaction_raises(
    db: Connection, pair: PostgreSQLPair, module: Any, sql: str, times: int
) -> None:
    with use_master():
        run(db, "DROP TABLE IF EXISTS late")
        run(db, "CREATE TABLE late (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        run(
            db,
            "CREATE OR REPLACE FUNCTION add_late() RETURNS INT LANGUAGE sql AS"
            " 'INSERT INTO late VALUES (1), (1) RETURNING id'",
        )
        with resume(""):
            for _ in range(times):
                with pytest.raises(module.errors.UniqueViolation):
                    run(db, sql)
            assert carry() == ""
        assert run(db, "SELECT COUNT(*) FROM late") == [(0,)]
        run(db, "DROP FUNCTION add_late")
        run(db, "DROP TABLE late")


@with_each
def test_m1_a_checkpoint_of_the_server_makes_no_marker(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_master():
        run(db, "INSERT INTO message VALUES (1)")
        assert carry() != ""
    with closing(pair.admin()) as admin, resume(""), use_master():
        for sql in (COUNT, "UPDATE message SET body = 'x' WHERE id = 2"):
            run(db, sql)
            admin.execute("CHECKPOINT")
            assert carry() == ""


@with_each
def test_m1_a_function_that_writes_before_an_unrecorded_transaction_is_recorded(
    db: Connection, pair: PostgreSQLPair
) -> None:
    prepared(db, pair)
    with resume(""), use_master():
        run(db, "SELECT add(1)")
        with unrecorded():
            db.begin()
            run(db, "INSERT INTO message VALUES (2)")
            db.commit()
            run(db, "INSERT INTO message VALUES (3)")
        run(db, COUNT)
        assert '"postgresql:' in carry()


@with_psycopg
@pytest.mark.parametrize(("settings", "are_prepared"), [({}, True), ({"prepare_threshold": None}, False)])
def test_p1_the_position_queries_are_prepared_unless_prepare_threshold_is_none(
    pair: PostgreSQLPair, loaded: Any, settings: dict[str, Any], are_prepared: bool
) -> None:
    """Django turns prepared statements off by default, because they do not work behind every pooler."""
    with psycopg.connect(**pair.master, autocommit=True, prepare_threshold=None) as raw:
        assert loaded.take(raw, settings, read_only=False)
        for _ in range(7):
            raw.execute("SELECT 1")
        found = raw.execute("SELECT COUNT(*) FROM pg_prepared_statements").fetchone()
        assert found is not None
        assert bool(found[0]) is are_prepared


@with_psycopg
@pytest.mark.parametrize("sql", ["DISCARD ALL", "DEALLOCATE ALL", "DROP TABLE IF EXISTS none", "ROLLBACK"])
def test_m1_position_queries_work_after_prepared_statements_were_removed(
    db: Connection, pair: PostgreSQLPair, sql: str
) -> None:
    with use_master():
        for number in range(8):
            run(db, "INSERT INTO message VALUES (%s)", number)
        for number in range(8, 24):
            with resume(""):
                if number in (9, 16):
                    run(db, sql)
                run(db, "INSERT INTO message VALUES (%s)", number)
                assert '"postgresql:' in carry()
        assert run(db, COUNT) == [(24,)]


@with_psycopg
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY swift ON message (body)",
        "/* a /* nested */ comment */ INSERT INTO message VALUES (1)",
        "-- a comment\n(SELECT add(1))",
        "EXECUTE put_one(1)",
    ],
)
def test_m1_a_write_in_an_unusual_statement_is_recorded(db: Connection, pair: PostgreSQLPair, sql: str) -> None:
    prepared(db, pair)
    with resume(""), use_master():
        if sql.startswith("EXECUTE"):
            run(db, "PREPARE put_one AS INSERT INTO message VALUES ($1)")
            assert carry() == ""
        run(db, sql)
        assert '"postgresql:' in carry()
    with use_master():
        run(db, "VACUUM message")
        run(db, "DROP INDEX IF EXISTS swift")


@with_psycopg
def test_m1_a_procedure_that_fails_after_its_commit_has_written(
    db: Connection, pair: PostgreSQLPair, module: Any
) -> None:
    prepared(db, pair)
    with use_master():
        run(db, "INSERT INTO message VALUES (2)")
    with resume(""), use_master():
        with pytest.raises(module.errors.UniqueViolation):
            run(db, "CALL put(1)")
        assert '"postgresql:' in carry()
        assert run(db, COUNT) == [(2,)]


@with_psycopg
def test_m1_a_commit_that_begins_the_next_transaction_is_recorded(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_master():
        run(db, "BEGIN")
        run(db, "INSERT INTO message VALUES (1)")
        run(db, "COMMIT AND CHAIN")
        db.rollback()
        assert carry() != ""
    with use_master():
        assert run(db, COUNT) == [(1,)]


@with_psycopg
def test_m1_a_rollback_that_is_sent_as_a_statement_makes_no_marker(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_master():
        run(db, "BEGIN")
        run(db, "INSERT INTO message VALUES (1)")
        run(db, "ROLLBACK")
        assert carry() == ""


@with_psycopg
def test_a_transaction_that_a_statement_begins_can_still_set_its_level(db: Connection, pair: PostgreSQLPair) -> None:
    with use_master():
        run(db, "BEGIN")
        run(db, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert run(db, "SHOW transaction_isolation") == [("serializable",)]
        run(db, "COMMIT")


@with_each
@pytest.mark.parametrize("side_of", [use_master, use_slave], ids=["master", "slave"])
@pytest.mark.parametrize(
    "first",
    ["SELECT 1", "SELECT 1; SELECT 2", "SET LOCAL work_mem = '1MB'; SELECT 1", "SAVEPOINT one", "SELECT none", ""],
)
def test_s5_the_first_statement_of_a_transaction_runs_in_it(
    db: Connection, pair: PostgreSQLPair, module: Any, side_of: Any, first: str
) -> None:
    """psycopg sends BEGIN with the first statement."""
    with resume(""), side_of():
        for _ in range(2):  # the second time, more is known of the statement
            db.begin()
            if first == "SELECT none":
                with pytest.raises(module.errors.UndefinedColumn):
                    run(db, first)
                with pytest.raises(module.errors.InFailedSqlTransaction):
                    run(db, "SELECT 1")
            else:
                if first:
                    run(db, first)
                run(db, "SAVEPOINT two")  # an error outside a transaction
            db.rollback()


@with_psycopg
def test_s5_a_first_statement_that_does_not_use_psycopgs_execute_runs_in_the_transaction(
    db: Connection, pair: PostgreSQLPair, module: Any
) -> None:
    def many() -> None:
        with db.cursor() as cursor:
            cursor.executemany("INSERT INTO message VALUES (%s)", [(1,), (2,)])

    def copied() -> None:
        with db.cursor() as cursor, cursor.copy("COPY message (id) FROM STDIN") as copy:
            copy.write_row((3,))

    def streamed() -> None:
        with db.cursor() as cursor:
            assert list(cursor.stream("INSERT INTO message VALUES (4) RETURNING id")) == [(4,)]

    def declared() -> None:
        with db.cursor("named") as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]

    def several() -> None:
        run(db, "INSERT INTO message VALUES (5); INSERT INTO message VALUES (6)")

    with resume(""), use_master():
        for first in many, copied, streamed, declared, several, several:
            db.begin()
            first()
            run(db, "INSERT INTO message VALUES (7)")
            db.rollback()
            assert run(db, COUNT) == [(0,)], first.__name__
        assert carry() == ""
        db.begin()
        db.commit()
        with pytest.raises(module.errors.NoActiveSqlTransaction):
            run(db, "SAVEPOINT two")


@with_psycopg
class TestCopyAndStream:
    TO = "COPY (SELECT id FROM message ORDER BY id) TO STDOUT"
    FROM = "COPY message (id) FROM STDIN"

    def test_reads_run_on_a_slave(self, db: Connection, pair: PostgreSQLPair) -> None:
        with use_master():
            run(db, "INSERT INTO message VALUES (1), (2)")
        pair.wait_caught_up()
        with resume(""), use_slave(), db.cursor() as cursor:
            with cursor.copy(self.TO) as copy:
                assert list(copy.rows()) == [("1",), ("2",)]
            assert side(db) == SLAVE
            assert list(cursor.stream("SELECT id FROM message WHERE id > %s ORDER BY id", (1,))) == [(2,)]
            assert side(db) == SLAVE
            assert list(cursor.stream("SELECT id FROM message WHERE false")) == []
            assert carry() == ""

    def test_writes_move_to_the_master(self, db: Connection, pair: PostgreSQLPair) -> None:
        with resume(""), use_slave(), db.cursor() as cursor:
            with cursor.copy(self.FROM) as copy:
                copy.write_row((1,))
            assert side(db) == MASTER
            assert carry() != ""
        with resume(""), use_slave(), db.cursor() as cursor:
            assert list(cursor.stream("INSERT INTO message VALUES (2) RETURNING id")) == [(2,)]
            assert side(db) == MASTER
        with use_master():
            assert run(db, COUNT) == [(2,)]

    def test_a_write_after_a_read_of_its_transaction_raises_slave_write_error(
        self, db: Connection, pair: PostgreSQLPair
    ) -> None:
        with resume(""), use_slave(), db.cursor() as cursor:
            db.begin()
            with cursor.copy(self.TO) as copy:
                list(copy.rows())
            with pytest.raises(SlaveWriteError), cursor.copy(self.FROM):
                pass
            db.rollback()

    def test_reads_on_the_master_make_no_marker(self, db: Connection, pair: PostgreSQLPair) -> None:
        with resume(""), use_master(), db.cursor() as cursor:
            with cursor.copy(self.TO) as copy:
                list(copy.rows())
            list(cursor.stream(COUNT))
            assert carry() == ""
            with cursor.copy("COPY (INSERT INTO message VALUES (1) RETURNING id) TO STDOUT") as copy:
                list(copy.rows())
            assert '"postgresql:' in carry()

    def test_after_an_error_in_copy_or_stream_the_connection_is_usable(
        self, db: Connection, pair: PostgreSQLPair, module: Any
    ) -> None:
        with resume(""), use_master(), db.cursor() as cursor:
            with pytest.raises(module.errors.UndefinedTable), cursor.copy("COPY none TO STDOUT"):
                pass
            with pytest.raises(ZeroDivisionError), cursor.copy(self.TO):
                raise ZeroDivisionError
            for _ in cursor.stream("SELECT generate_series(1, 100000)"):
                break
            with pytest.raises(module.errors.BadCopyFileFormat), cursor.copy(self.FROM) as copy:
                copy.write(b"1\t2\t3\n")
            assert run(db, COUNT) == [(0,)]

    def test_a_transaction_that_has_streamed_is_recorded(self, db: Connection, pair: PostgreSQLPair) -> None:
        with resume(""), use_master(), db.cursor() as cursor:
            db.begin()
            assert list(cursor.stream("INSERT INTO message VALUES (1) RETURNING id")) == [(1,)]
            db.commit()
            assert '"postgresql:' in carry()

    def rows(self, cursor: Any, way: str) -> Iterator[int]:
        if way == "stream":
            yield from (row[0] for row in cursor.stream("SELECT id FROM message ORDER BY id"))
        else:
            with cursor.copy(self.TO) as copy:
                yield from (int(row[0]) for row in copy.rows())

    @pytest.mark.parametrize("way", ["stream", "copy"])
    @pytest.mark.parametrize("state", [use_slave, use_master])
    def test_s6_all_rows_arrive_if_the_loop_over_them_writes_and_reads(
        self, db: Connection, pair: PostgreSQLPair, state: Any, way: str
    ) -> None:
        with use_master():
            run(db, "INSERT INTO message SELECT generate_series(1, 5)")
        pair.wait_caught_up()
        seen = []
        with resume(""), state(), db.cursor() as cursor:
            for number in self.rows(cursor, way):
                seen.append(number)
                with use_master():
                    run(db, "INSERT INTO message VALUES (%s)", 10 + number)
                with use_slave():
                    assert run(db, COUNT) == [(5 + number,)]
            assert '"postgresql:' in carry()
        assert seen == [1, 2, 3, 4, 5]

    def test_a_copy_in_a_transaction_has_its_uncommitted_rows(self, db: Connection, pair: PostgreSQLPair) -> None:
        with use_master():
            db.begin()
            run(db, "INSERT INTO message VALUES (1)")
            with db.cursor() as cursor, cursor.copy(self.TO) as copy:
                assert list(copy.rows()) == [("1",)]
            db.rollback()
            assert run(db, COUNT) == [(0,)]


@with_psycopg
def test_a_server_side_cursor_reads_on_a_slave(db: Connection, pair: PostgreSQLPair, module: Any) -> None:
    with use_master():
        run(db, "INSERT INTO message VALUES (1), (2), (3)")
    pair.wait_caught_up()
    with resume(""), use_slave():
        db.begin()
        with db.cursor("some", row_factory=module.rows.dict_row) as cursor:
            cursor.execute("SELECT id FROM message ORDER BY id")
            assert cursor.fetchmany(2) == [{"id": 1}, {"id": 2}]
            assert [column.name for column in cursor.description] == ["id"]
            assert list(cursor) == [{"id": 3}]
        assert [column.name for column in cursor.description] == ["id"], "a closed cursor keeps its description (S6)"
        assert side(db) == SLAVE
        with pytest.raises(SlaveWriteError):
            run(db, "INSERT INTO message VALUES (4)")
        db.rollback()


@with_psycopg
def test_m1_what_a_server_side_cursor_writes_is_recorded(db: Connection, pair: PostgreSQLPair) -> None:
    prepared(db, pair)
    with resume(""), use_master():
        with db.cursor("some", withhold=True) as cursor:
            cursor.execute("SELECT add(1)")
            assert cursor.fetchall() == [(1,)]
        assert carry() != ""
    with resume(""), use_master():
        db.begin()
        with db.cursor("some") as cursor:
            cursor.execute("SELECT add(2)")
            assert cursor.fetchall() == [(2,)]
        db.commit()
        assert '"postgresql:' in carry()


@with_each
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO message VALUES (1)",
        "SELECT add(1)",
        "SELECT * FROM message FOR UPDATE",
        "CREATE TABLE other (id INT)",
        "TRUNCATE message",
        "CREATE TEMPORARY TABLE mine (id INT)",
        "SELECT 7; INSERT INTO message VALUES (1)",
    ],
)
def test_s8_what_a_slave_refuses_runs_on_the_master(db: Connection, pair: PostgreSQLPair, sql: str) -> None:
    prepared(db, pair)
    with resume(""), use_slave():
        run(db, sql)
        assert side(db) == MASTER
    with use_master():
        run(db, "DROP TABLE IF EXISTS other")


@with_each
def test_s8_a_transaction_that_has_read_nothing_moves_whole(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_slave():
        db.begin()
        run(db, "INSERT INTO message VALUES (1)")
        run(db, "INSERT INTO message VALUES (2)")
        db.commit()
        assert side(db) == MASTER
    with resume(""), use_slave():
        db.begin()
        run(db, COUNT)
        with pytest.raises(SlaveWriteError):
            run(db, "INSERT INTO message VALUES (3)")
        db.rollback()
    with use_master():
        assert run(db, COUNT) == [(2,)]


@with_each
@pytest.mark.parametrize("sql", ["SET my.who = 'ann'", "SELECT set_config('my.who', 'ann', false)"])
def test_s8_a_write_after_a_change_of_its_session_is_refused(db: Connection, pair: PostgreSQLPair, sql: str) -> None:
    with resume(""), use_slave():
        run(db, sql)
        with pytest.raises(SlaveWriteError, match="changed the session"):
            run(db, "INSERT INTO message VALUES (1, current_setting('my.who'))")
    with use_master():
        assert run(db, COUNT) == [(0,)]


@with_each
@pytest.mark.parametrize(
    "sql",
    [
        "SET default_transaction_read_only = off",
        "SET SESSION default_transaction_read_only TO 'off'",
        "BEGIN READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', false)",
    ],
)
def test_s7_a_statement_that_would_end_read_only_mode_leaves_the_slaves_link_read_only(
    pair: PostgreSQLPair, loaded: Driver, sql: str
) -> None:
    module: Any = loaded.module
    with closing(loaded.open(pair.master, read_only=True)) as raw:
        with pytest.raises(module.errors.ReadOnlySqlTransaction):
            raw.cursor().execute(sql)
        with suppress(module.Error):
            raw.cursor().execute("RESET ALL")
            raw.cursor().execute("DISCARD ALL")
        with pytest.raises(module.errors.ReadOnlySqlTransaction):
            raw.cursor().execute("INSERT INTO message VALUES (1)")


@with_each
@pytest.mark.parametrize(
    "sql", ["SET work_mem = '2MB'", "SELECT set_config('work_mem', '2MB', false)", "SELECT pg_advisory_lock(7)"]
)
def test_s11_a_link_with_a_changed_session_is_not_given_to_another_scope(
    db: Connection, pair: PostgreSQLPair, sql: str
) -> None:
    def process() -> Any:
        return run(db, "SELECT pg_backend_pid()")

    for state in (use_master, use_slave):
        with resume(""), state():
            before = process()
        with resume(""), state():
            assert process() == before
            run(db, sql)
        with resume(""), state():
            assert process() != before


@with_each
def test_f1_no_read_fails_after_the_server_has_ended_a_session(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_slave():
        number = run(db, "SELECT pg_backend_pid()")[0][0]
        with closing(pair.admin("slave")) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (number,))
        assert run(db, COUNT) == [(0,)]
        assert side(db) == SLAVE


@with_each
def test_f1_no_read_fails_after_a_slave_was_killed(db: Connection, pair: PostgreSQLPair) -> None:
    with resume(""), use_slave():
        run(db, COUNT)
        pair.kill("slave")
        assert run(db, COUNT) == [(0,)]
        assert side(db) == MASTER


@with_each
@pytest.mark.parametrize("fatal", [False, True], ids=["the query is cancelled", "the session is ended"])
def test_f1_a_read_that_conflicts_with_replication_runs_on_the_master_or_raises_in_a_transaction(
    db: Connection, pair: PostgreSQLPair, module: Any, fatal: bool
) -> None:
    with use_master():
        run(db, "INSERT INTO message VALUES (1)")
    pair.wait_caught_up()
    with altered(pair, "slave", max_standby_streaming_delay="100"):
        with resume(""), use_slave():
            if fatal:  # a session in a transaction that has read is ended
                db.begin()
                run(db, "SELECT 7")
            timer = threading.Timer(0.3, _truncate, (pair,))
            timer.start()
            if fatal:
                run(db, COUNT)
                timer.join()
                time.sleep(1)
                with pytest.raises(module.Error):
                    run(db, COUNT)
                db.rollback()
            else:
                assert run(db, "SELECT COUNT(*), pg_sleep(2) FROM message")[0][0] in (0, 1)
                assert side(db) == MASTER
            timer.join()
        pair.wait_caught_up()
        with resume(""), use_slave():
            run(db, COUNT)
            assert side(db) == SLAVE, "the slave is well and must not rest"


def _truncate(pair: PostgreSQLPair) -> None:
    with closing(pair.connect()) as connection:
        connection.execute("TRUNCATE message")


@with_each
def test_f1_an_unlogged_table_is_read_on_the_master(db: Connection, pair: PostgreSQLPair) -> None:
    with use_master():
        run(db, "DROP TABLE IF EXISTS fast")
        run(db, "CREATE UNLOGGED TABLE fast (id INT)")
    pair.wait_caught_up()
    with resume(""), use_slave():
        assert run(db, "SELECT * FROM fast") == []
        assert side(db) == MASTER
    with use_master():
        run(db, "DROP TABLE fast")


@with_each
def test_f1_a_slave_that_receives_nothing_exceeds_max_lag(
    make: Make, pair: PostgreSQLPair, caplog: pytest.LogCaptureFixture
) -> None:
    db = make(max_lag=60)
    with resume(""), use_slave():
        run(db, COUNT)
        assert side(db) == SLAVE
    pair.stop_slave()
    db = make(max_lag=60)
    for _ in range(2):
        with resume(""), use_slave():
            run(db, COUNT)
            assert side(db) == MASTER
    assert caplog.text.count("more than 60 s behind (max_lag)") == 1


@with_each
def test_f4_a_table_that_has_not_arrived_is_read_on_the_master(db: Connection, pair: PostgreSQLPair) -> None:
    pair.stop_slave()
    with closing(pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS fresh")
        connection.execute("CREATE TABLE fresh (id INT)")
    with resume(""), use_slave():
        assert run(db, "SELECT * FROM fresh") == []
        assert side(db) == MASTER
    with closing(pair.connect()) as connection:
        connection.execute("DROP TABLE fresh")


@pytest.fixture
def proxies(pair: PostgreSQLPair) -> Iterator[tuple[Proxy, Proxy]]:
    with Proxy(pair.master["port"]) as master, Proxy(pair.slaves[0]["port"]) as slave:
        yield master, slave


@with_psycopg
def test_f5_a_read_on_a_slave_that_never_answers_ends_after_the_read_time_out(
    make: Make, proxies: tuple[Proxy, Proxy]
) -> None:
    _, slave = proxies
    db = make(slaves=[{"port": slave.port, "read_timeout": 0.5}])
    with resume(""), use_slave():
        assert run(db, COUNT) == [(0,)]
        assert side(db) == SLAVE
        slave.drop()
        began = time.monotonic()
        with suppress(load_driver("psycopg").module.OperationalError):
            run(db, COUNT)
        assert 0.4 < time.monotonic() - began < 10


@with_each
def test_p1_the_position_of_a_write_costs_no_round_trip_except_outside_transactions_with_psycopg2(
    make: Make, pair: PostgreSQLPair, loaded: Driver, proxies: tuple[Proxy, Proxy]
) -> None:
    db, trips = make(master={**pair.master, "port": proxies[0].port}), RoundTrips(*proxies)

    def block() -> None:
        db.begin()
        run(db, "INSERT INTO message VALUES (2)")
        db.commit()

    with resume(""), use_master():
        run(db, "SELECT 1")
        assert trips(lambda: run(db, "INSERT INTO message VALUES (1)")) == 1
        assert trips(block) == (3 if loaded.must_ask else 2)  # BEGIN, INSERT, COMMIT; psycopg sends BEGIN with INSERT
        assert trips(lambda: run(db, "SELECT 1")) == 1
        assert trips(carry) == int(loaded.must_ask), "statements outside transactions are asked about later, once"
        assert trips(carry) == 0


@with_each
def test_f2_a_standby_under_the_masters_name_is_not_used_as_the_master(
    make: Make, pair: PostgreSQLPair, proxies: tuple[Proxy, Proxy]
) -> None:
    """After a promotion, the master's name may still lead to the former master, which is a slave that lags now."""
    master, _ = proxies
    db = make(master={**pair.master, "port": master.port})
    right, master.target = master.target, pair.slaves[0]["port"]
    with resume(""), use_master(), pytest.raises(NoServerError):
        run(db, "INSERT INTO message VALUES (1)")
    with resume(""), use_slave():
        assert run(db, COUNT) == [(0,)]
    pair.stop_slave()
    master.target = right
    with resume(""), use_master():
        run(db, "INSERT INTO message VALUES (1)")
        assert run(db, COUNT) == [(1,)]


@with_each
class TestErrorsWhileConnecting:
    def fault(self, loaded: Driver, settings: dict[str, Any]) -> Fault:
        with pytest.raises(loaded.module.Error) as raised:
            loaded.open(settings, read_only=False)
        return loaded.classify(raised.value)

    def test_f1_a_refused_connection_is_unsent_and_a_wrong_password_is_not(
        self, pair: PostgreSQLPair, loaded: Driver
    ) -> None:
        assert self.fault(loaded, {**pair.master, "port": 1}) is Fault.UNSENT
        assert self.fault(loaded, {**pair.master, "password": "wrong"}) is Fault.OTHER
        assert self.fault(loaded, {**pair.master, "dbname": "wrong"}) is Fault.OTHER

    def test_f1_a_connection_that_breaks_while_it_is_opened_is_lost(
        self, pair: PostgreSQLPair, loaded: Driver, proxies: tuple[Proxy, Proxy]
    ) -> None:
        master, _ = proxies
        settings = {**pair.master, "port": master.port}
        master.cut_after(20)
        assert self.fault(loaded, settings) is Fault.UNSENT

    def test_f1_a_server_without_a_free_connection_is_full(self, pair: PostgreSQLPair, loaded: Driver) -> None:
        with closing(pair.admin()) as admin:
            admin.execute("ALTER ROLE shop CONNECTION LIMIT 0")
            try:
                assert self.fault(loaded, pair.master) is Fault.FULL
            finally:
                admin.execute("ALTER ROLE shop CONNECTION LIMIT -1")


@with_psycopg
def test_p4_a_write_that_a_promotion_has_lost_never_counts_as_reached(make: Make, pair: PostgreSQLPair) -> None:
    with PostgreSQLPair(slaves=2) as lossy:
        with replswitch.connect(lossy.master, lossy.slaves, driver="psycopg") as db, use_master():
            run(db, "CREATE TABLE message (id INT PRIMARY KEY)")
            lossy.wait_caught_up()
            for name in lossy.slave_names:
                lossy.stop_slave(name)
            with resume(""):
                run(db, "INSERT INTO message VALUES (1)")
                lost = carry()
        lossy.kill("master")
        with closing(lossy.admin("slave")) as admin:
            admin.execute("SELECT pg_promote()")
        lossy.master_name = "slave"
        lossy.start_slave("slave2")
        slave = lossy.slaves[1]
        with replswitch.connect(lossy.master, [slave], driver="psycopg", name=_set_of(lost), debug=True) as db:
            with use_master():
                for number in range(2, 40):
                    run(db, "INSERT INTO message VALUES (%s)", number)
            lossy.kill("master")
            with resume(lost), use_slave():
                assert run(db, COUNT) == [(38,)]
                assert side(db) == MASTER
            lossy._wait_for("slave2", lossy._master_position(), time.monotonic() + 10)
            with resume(""), use_slave():
                assert run(db, COUNT) == [(38,)]
                assert side(db) == SLAVE


def _set_of(token: str) -> str:
    return token.partition('"p":{"')[2].partition('"')[0]


@with_psycopg
def test_settings_that_replswitch_sets_are_refused(pair: PostgreSQLPair) -> None:
    with pytest.raises(ConfigurationError, match='"autocommit" of the master is set by replswitch itself'):
        replswitch.connect({**pair.master, "autocommit": False}, driver="psycopg")


@with_psycopg
def test_an_unknown_setting_is_refused_before_a_connection_is_opened(pair: PostgreSQLPair) -> None:
    with pytest.raises(ConfigurationError, match=r'Unknown setting of the master "database"'):
        replswitch.connect({**pair.master, "database": "shop"}, driver="psycopg")


@pytest.fixture
def raw(pair: PostgreSQLPair, loaded: Driver) -> Iterator[Any]:
    """A connection to the master as SQLAlchemy and Django use it."""
    with closing(loaded.open(pair.master, read_only=False)) as opened:
        loaded.adopt(opened, read_only=False, begin="")
        yield opened


def one(raw: Any, sql: str) -> Any:
    with closing(raw.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


@with_each
def test_p1_a_position_query_begins_no_transaction(raw: Any, loaded: Driver) -> None:
    loaded.fetch_position(raw)
    assert not loaded.in_transaction(raw)
    raw.commit()
    assert raw.pop_write_status() is Written.NO, "a commit without a transaction has written nothing"


@with_psycopg
def test_m1_the_position_can_be_queried_after_a_procedure_has_failed(
    raw: Any, db: Connection, pair: PostgreSQLPair
) -> None:
    """SQLAlchemy does so at once, outside any scope."""
    prepared(db, pair)
    raw.autocommit = True
    seen: list[object] = []
    raw.on_write = lambda tracker, _: seen.append(tracker.ask(None))
    one(raw, "INSERT INTO message VALUES (2) RETURNING id")
    del seen[:]
    with pytest.raises(psycopg.errors.UniqueViolation):
        raw.cursor().execute("CALL put(1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        raw.cursor().execute("SELECT 1; INSERT INTO message VALUES (1)")
    assert len(seen) == 2
    assert all(isinstance(each, Position) for each in seen)


@with_psycopg
@pytest.mark.parametrize("binds", ["on the client", "on the server"])
def test_m1_a_write_with_a_cursor_class_of_the_application_is_recorded(
    pair: PostgreSQLPair, loaded: Driver, binds: str
) -> None:
    kind: Any = psycopg.ClientCursor if binds == "on the client" else psycopg.Cursor
    texts: list[object] = []

    class Counting(kind):  # type: ignore[misc]  # chosen above
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            texts.append(query)
            return super().execute(query, *args, **options)

    opened: Any = psycopg.connect(**pair.master, cursor_factory=Counting, autocommit=True)
    with closing(opened):
        driver: Any = loaded
        assert driver.take(opened, {}, read_only=False)
        opened.pop_write_status()
        with opened.cursor() as cursor:
            assert isinstance(cursor, Counting)
            cursor.execute("SELECT %s::int", (7,))
            assert cursor.fetchone() == (7,)
            assert opened.pop_write_status() is Written.NO
            cursor.execute("INSERT INTO message VALUES (%s)", (1,))
        assert isinstance(opened.pop_write_status(), Position)
    assert texts == ["SELECT %s::int", "INSERT INTO message VALUES (%s)"]


@with_each
def test_s11_a_new_temporary_table_counts_as_a_change_of_the_session_and_the_word_temp_does_not(raw: Any) -> None:
    one(raw, "SELECT 1 AS temp")
    assert not raw.session_changed
    with closing(raw.cursor()) as cursor:
        cursor.execute("/* a comment */ CREATE LOCAL TEMP TABLE mine (id INT)")
    assert raw.session_changed


@with_psycopg2
class TestTransactionsOfPsycopg2:
    """They begin and end as those of psycopg2 itself, although the connection begins them by itself."""

    def test_autocommit_can_be_turned_off_and_on(self, raw: Any, pair: PostgreSQLPair) -> None:
        assert raw.autocommit is False
        one(raw, "INSERT INTO message VALUES (1) RETURNING id")
        with pytest.raises(psycopg2.ProgrammingError, match="inside a transaction"):
            raw.autocommit = True
        raw.rollback()
        raw.autocommit = True
        one(raw, "INSERT INTO message VALUES (2) RETURNING id")
        raw.rollback()
        raw.autocommit = False
        assert one(raw, "SELECT array_agg(id) FROM message") == ([2],)

    def test_an_isolation_level_holds_for_its_transactions(self, raw: Any) -> None:
        serializable = psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE
        for level, name in ((serializable, "serializable"), (None, "read committed")):
            raw.set_isolation_level(level)
            assert raw.autocommit is False
            assert one(raw, "SHOW transaction_isolation") == (name,)
            raw.rollback()
        raw.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        assert raw.autocommit is True

    def test_a_server_side_cursor_reads_in_a_transaction(self, raw: Any) -> None:
        with closing(raw.cursor("one's", cursor_factory=psycopg2.extras.RealDictCursor)) as cursor:
            cursor.itersize = 2
            cursor.execute("SELECT generate_series(1, %s) AS n", (5,))
            assert [row["n"] for row in cursor] == [1, 2, 3, 4, 5]
        raw.commit()
        assert raw.pop_write_status() is Written.NO

    def test_a_with_block_commits(self, raw: Any) -> None:
        with raw:
            one(raw, "INSERT INTO message VALUES (1) RETURNING id")
        assert isinstance(raw.pop_write_status(), Position)
        with suppress(KeyError), raw:
            one(raw, "INSERT INTO message VALUES (2) RETURNING id")
            raise KeyError
        assert one(raw, "SELECT COUNT(*) FROM message") == (1,)


@with_each
def test_a_two_phase_commit_is_refused(raw: Any, module: Any) -> None:
    with pytest.raises(module.NotSupportedError, match="no two-phase commit"):
        raw.tpc_begin(raw.xid(1, "replswitch", "one"))


@with_each
def test_s12_a_forked_child_does_not_end_its_parents_session(raw: Any) -> None:
    process = one(raw, "SELECT pg_backend_pid()")
    child = os.fork()
    if not child:
        raw.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert one(raw, "SELECT pg_backend_pid()") == process


def test_connect_refuses_psycopg2_and_names_psycopg() -> None:
    with pytest.raises(ConfigurationError, match='driver="psycopg"'):
        replswitch.connect({"host": "master.db"}, driver="psycopg2")


@with_psycopg
@pytest.mark.parametrize("use", [use_master, use_slave])
def test_s7_a_statement_with_too_many_parameters_closes_no_connection(db: Connection, use: Any) -> None:
    """libpq refuses to send it, but what replswitch sends before it, such as BEGIN, was sent."""
    rested = sum(replswitch.stats()["rest"].values())
    names, values = ", ".join(["%s"] * 65_536), range(65_536)
    session = "SELECT pg_backend_pid()"
    with resume(""), use():
        (first, *others) = [run(db, session) for _ in range(4)]  # the fifth statement prepares replswitch's questions
        for begins in (False, True):
            if begins:
                db.begin()
            with pytest.raises(psycopg.OperationalError, match="number of parameters must be between 0 and 65535"):
                run(db, f"SELECT 1 WHERE 1 IN ({names})", *values)
            others.append(run(db, session))
        db.commit()
        assert others == [first] * 5
        if use is use_master:
            run(db, "INSERT INTO message VALUES (1)")
            assert '"postgresql:' in carry()
    assert sum(replswitch.stats()["rest"].values()) == rested


@with_psycopg
def test_a_connection_works_again_after_a_function_has_removed_all_prepared_statements(db: Connection) -> None:
    remove = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"
    numbers = count()

    def write() -> None:
        for _ in range(PREPARED_AFTER):
            run(db, f"INSERT INTO message VALUES ({next(numbers)})")  # psycopg prepares none of them

    with use_master():
        write()
        before = run(db, "SELECT pg_backend_pid()")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            run(db, remove)
        write()
        db.begin()
        run(db, remove)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            db.commit()
        db.rollback()
        db.begin()
        write()
        db.commit()
        assert run(db, "SELECT pg_backend_pid()") == before


class Cents(int):
    """A type that psycopg converts like a number."""


class CentsDumper(psycopg.adapt.Dumper):
    def dump(self, obj: Cents) -> bytes:
        return b"%d.%02d" % divmod(obj, 100)


@with_psycopg
def test_a_cursor_uses_adapters_that_were_registered_after_its_first_statement(db: Connection) -> None:
    sql = "SELECT %s::text"
    with db.cursor() as cursor:
        cursor.execute(sql, ("first",))
        cursor.adapters.register_dumper(Cents, CentsDumper)
        cursor.execute(sql, (Cents(150),))
        assert cursor.fetchall() == [("1.50",)]


MANY = "SELECT " + ", ".join(["%s::int"] * 60)


@with_psycopg
@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT %s::text, 5 %% 3", ("a",)),
        ("SELECT %s::text", ["a"]),
        ("SELECT %(b)s::text, %(a)s::int, %(b)s::text", {"a": 1, "b": "x"}),
        ("SELECT 'é', %s::text", ("é",)),
        ("SELECT 1", ()),
        (MANY, tuple(range(60))),
        ("SELECT %s::text", ()),
        ("SELECT %s::text", ("a", "b")),
        ("SELECT %(a)s::text", ("a",)),
        ("SELECT %s::text", {"a": 1}),
        ("SELECT %(a)s::text", {"b": 1}),
        ("SELECT %s::text", 5),
        ("SELECT %x", ("a",)),
    ],
)
def test_parameters_are_converted_as_by_psycopg(db: Connection, pair: PostgreSQLPair, sql: str, values: Any) -> None:
    def outcome(connection: Any) -> Any:
        with connection.cursor() as cursor:
            try:
                cursor.execute(sql, values)
            except (psycopg.Error, TypeError) as error:
                return type(error), str(error)
            return cursor.fetchall()

    with psycopg.connect(**pair.master, autocommit=True) as stock:
        expected = outcome(stock)
    for _ in range(2):
        assert outcome(db) == expected
