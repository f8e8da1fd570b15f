"""Reads outside transactions on the master with psycopg, whose text also has the query whether they have written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import pytest

from replswitch.drivers import Written, load_driver
from replswitch.drivers.postgresql_statement import kept
from replswitch.positions import Position
from replswitch.testing import PostgreSQLPair

SETUP = """
DROP TABLE IF EXISTS message, late, copied;
CREATE TABLE message (id INT PRIMARY KEY, body TEXT);
INSERT INTO message VALUES (1, 'é');
CREATE TABLE late (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED);
DROP SEQUENCE IF EXISTS runs;
CREATE SEQUENCE runs;
CREATE OR REPLACE FUNCTION add(number INT) RETURNS INT LANGUAGE sql AS
    'INSERT INTO message VALUES (number) RETURNING id';
CREATE OR REPLACE FUNCTION add_late() RETURNS INT LANGUAGE sql AS
    'INSERT INTO late VALUES (1), (1) RETURNING id';
CREATE OR REPLACE FUNCTION fail_to_parse() RETURNS INT LANGUAGE plpgsql AS
    $$ BEGIN PERFORM nextval('runs'); EXECUTE 'SELECT 1 +'; RETURN 1; END $$;
CREATE OR REPLACE FUNCTION parse_name(name TEXT) RETURNS REGTYPE LANGUAGE sql AS 'SELECT name::regtype';
CREATE OR REPLACE FUNCTION hint() RETURNS INT LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'a hint'; RETURN 1; END $$
"""
SENT = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"


@pytest.fixture
def pair(postgresql_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute(SETUP)
    kept.cache_clear()  # what is known of a statement
    yield postgresql_pair
    postgresql_pair.reset()


@contextmanager
def opened(pair: PostgreSQLPair, kind: Any, *, tracked: bool, **settings: Any) -> Iterator[Any]:
    """Open a connection as Django does, without prepared statements."""
    settings = {"autocommit": True, "prepare_threshold": None, "cursor_factory": kind, **settings}
    raw: Any = psycopg.connect(**pair.master, **settings)
    with closing(raw) as connection:
        if tracked:
            driver: Any = load_driver("psycopg", binding=True)
            assert driver.take(connection, {}, read_only=False)
            connection.pop_write_status()
        yield connection


with_each_cursor = pytest.mark.parametrize(
    "kind", [psycopg.ClientCursor, psycopg.Cursor], ids=["bound on the client", "bound on the server"]
)


def outcome(connection: Any, sql: Any, values: Any = None, **options: Any) -> list[Any]:
    """Run a statement, and return all that an application can see of it."""
    notices: list[Any] = []
    connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    seen: list[Any] = []
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql, values, **options)
            while True:
                columns = cursor.description and [(each.name, each.type_code) for each in cursor.description]
                rows = cursor.fetchall() if columns else None
                seen.append((columns, rows, cursor.rowcount, cursor.statusmessage))
                if not cursor.nextset():
                    break
        except psycopg.Error as error:
            seen.append((type(error), str(error), error.sqlstate, error.diag.statement_position))
    seen.extend((connection.info.transaction_status, list(notices)))
    if not connection.closed:
        connection.rollback()
    return seen


@with_each_cursor
@pytest.mark.parametrize(
    "sql",
    [
        *("SELECT 1", "SELECT 1;", "SELECT 1 -- end", "SELECT 1 /* end */", " ;\n(SELECT 1)", "SELECT"),
        *("TABLE message", "/* a */ SELECT 1", "VALUES (1), (2)", "SHOW work_mem", "EXPLAIN (COSTS OFF) SELECT 1"),
        *("SELECT hint()", "SELECT current_setting('transaction_read_only')", "SELECT ';'", "SELECT Current_Query()"),
        *("SELECT body, 'é' FROM message", "SELECT 1 INTO copied", "SELECT set_config('work_mem', '5MB', true)"),
        # several statements
        *("SELECT 1; SELECT 2", "SELECT 1; SELECT 2;", "SELECT 1; ROLLBACK", "SELECT 1; BEGIN", "SELECT 1; VACUUM"),
        *("SELECT 1; SELECT none", "SELECT 1; BEGIN; SELECT none", "SELECT 1; SELECT 2; SELECT none"),
        # errors of a statement, and at its commit
        *("SELECT none", "SELECT 1\n  , none\n", "SELECT 'é', none", "SELECT 1/0", "SHOW none", "SELECT add_late()"),
        *("SELECT fail_to_parse()", "SELECT 'none'::regtype", "SELECT '1 +'::regtype"),
        # errors of the text
        *("SELECT 1 +", "SELECT 1 )", "SELECT 'open", 'SELECT "open', "SELECT $$open", "SELECT 1 /* open"),
        *("SELECT U&'\\'", "SELECT E'\\'", "SELECT1", "SELECT 1; SELECT 1 +"),
        # texts whose end, or whose first word, is hidden
        *("SELECT 1\0 + none", "SELECT\0", "/* /* */ SELECT 1 */", "/* /* */ SELECT 1 */ VALUES (2)"),
        *("/* /* */ SELECT 1 */ VACUUM message", "-- /*\nSELECT 1", "/* -- */ SELECT 1"),
    ],
)
def test_a_read_on_the_master_has_the_same_outcome_as_with_psycopg_alone(
    pair: PostgreSQLPair, kind: Any, sql: str
) -> None:
    with opened(pair, kind, tracked=False) as stock:
        expected = outcome(stock, sql)
        stock.execute("DROP TABLE IF EXISTS copied")
    with opened(pair, kind, tracked=True) as connection:
        for _ in range(2):  # the second time, more is known of the statement
            assert outcome(connection, sql) == expected
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE IF EXISTS copied")
        assert connection.execute("SELECT 1").fetchone() == (1,)


@with_each_cursor
@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"])
def test_a_transaction_that_several_statements_begin_on_the_master_has_no_query_before_those_of_the_application(
    pair: PostgreSQLPair, kind: Any, begin: str
) -> None:
    with opened(pair, kind, tracked=True) as connection:
        connection.execute(f"SELECT 1; COMMIT; {begin}")
        connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")  # refused after a query
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("serializable",)


@with_each_cursor
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII", "SJIS"])
def test_a_read_in_each_encoding_has_the_same_outcome_as_with_psycopg_alone(
    pair: PostgreSQLPair, kind: Any, encoding: str
) -> None:
    settings = {"client_encoding": encoding}
    texts = ("SELECT %s::text", "SELECT 'a', %s::text -- \N{KATAKANA LETTER SO}", "SELECT 'é', %s::text, none")
    for sql in (*texts, "SELECT 1", b"SELECT %s::text -- \xc3", psycopg.sql.SQL("SELECT %s::text")):
        for value in "a", "é", "\N{KATAKANA LETTER SO}":
            found: list[Any] = []
            for tracked in (False, True):
                with opened(pair, kind, tracked=tracked, **settings) as connection:
                    try:
                        found.append(outcome(connection, sql, None if sql == "SELECT 1" else (value,)))
                    except UnicodeError as error:
                        found.append(type(error))
            assert found[0] == found[1], (sql, value)


@with_each_cursor
def test_p1_the_query_whether_a_read_has_written_is_sent_in_the_text_of_the_read(
    pair: PostgreSQLPair, kind: Any
) -> None:
    with opened(pair, kind, tracked=True) as connection:
        for _ in range(8):
            found = connection.execute(SENT).fetchone()
            assert found is not None
            assert found[0] == f"{SENT}\n;SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
            assert connection.pop_write_status() is Written.NO


def test_p1_a_read_that_psycopg_prepares_stays_prepared(pair: PostgreSQLPair) -> None:
    with opened(pair, psycopg.Cursor, tracked=True, prepare_threshold=5) as connection:
        for _ in range(8):
            assert connection.execute(SENT).fetchone() == (SENT,)
        prepared = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        assert (SENT,) in prepared


@with_each_cursor
def test_a_read_on_the_master_keeps_binary_results(pair: PostgreSQLPair, kind: Any) -> None:
    with opened(pair, kind, tracked=True) as connection, opened(pair, kind, tracked=False) as stock:
        assert outcome(connection, "SELECT 258", binary=True) == outcome(stock, "SELECT 258", binary=True)
        if kind is psycopg.Cursor:
            cursor = connection.cursor(binary=True)
            cursor.execute("SELECT 258")
            assert cursor.pgresult.get_value(0, 0) == b"\0\0\1\2"


@with_each_cursor
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT add(2)",
        "EXPLAIN ANALYZE INSERT INTO message VALUES (2)",
        "SELECT 2 INTO copied",
        "SELECT 1; INSERT INTO message VALUES (2)",
        "SELECT 1; INSERT INTO message VALUES (2); COMMIT",
        "/* /* */ SELECT 1 */ INSERT INTO message VALUES (2)",
    ],
)
def test_m1_a_write_that_begins_like_a_read_is_recorded(pair: PostgreSQLPair, kind: Any, sql: str) -> None:
    with opened(pair, kind, tracked=True) as connection:
        for _ in range(2):  # the second time, more is known of the statement
            connection.execute(sql)
            status = connection.pop_write_status()
            assert status is not Written.NO
            connection.execute("DELETE FROM message WHERE id = 2")
            connection.execute("DROP TABLE IF EXISTS copied")
            connection.pop_write_status()
        if sql == "SELECT add(2)":
            assert isinstance(status, Position)


@with_each_cursor
def test_m1_what_several_statements_have_committed_before_an_error_is_recorded(pair: PostgreSQLPair, kind: Any) -> None:
    with opened(pair, kind, tracked=True) as connection:
        for number in (2, 3):
            with pytest.raises(psycopg.errors.UndefinedColumn):
                connection.execute(f"SELECT add({number}); COMMIT; SELECT none")
            assert connection.pop_write_status() is not Written.NO


@with_each_cursor
@pytest.mark.parametrize("sql", ["SELECT add_late()", "SELECT 1 +", "SELECT none", "SELECT add(1)"])
def test_m1_a_read_that_has_failed_makes_no_marker(pair: PostgreSQLPair, kind: Any, sql: str) -> None:
    with opened(pair, kind, tracked=True) as connection:
        for _ in range(2):
            with pytest.raises(psycopg.Error):
                connection.execute(sql)
            assert connection.pop_write_status() is Written.NO


@pytest.mark.parametrize(
    "sql",
    [
        *("SELECT nextval('runs')", "SELECT nextval('runs')\0 + none", "SELECT fail_to_parse()"),
        "SELECT nextval('runs'), query_to_xml('SELECT 1 +', true, true, '')",
        "SELECT nextval('runs'), parse_name('1 +')",
    ],
)
def test_a_read_on_the_master_runs_once(pair: PostgreSQLPair, sql: str) -> None:
    with opened(pair, psycopg.ClientCursor, tracked=True) as connection:
        for number in (1, 2, 3):
            with suppress(psycopg.errors.SyntaxError):
                connection.execute(sql)
            assert connection.execute("SELECT last_value FROM runs").fetchone() == (number,)


def test_a_statement_that_the_server_refuses_in_a_transaction_is_sent_alone(pair: PostgreSQLPair) -> None:
    """Functions of some extensions do this; here, VACUUM stands for them."""
    sql = "VACUUM message"
    kept(sql).joins = True
    with opened(pair, psycopg.ClientCursor, tracked=True) as connection:
        for _ in range(2):
            assert connection.execute(sql).statusmessage == "VACUUM"
            assert connection.pop_write_status() is not Written.NO
    assert not kept(sql).joins


@with_each_cursor
def test_copy_among_several_statements_is_refused_as_by_psycopg(pair: PostgreSQLPair, kind: Any) -> None:
    for sql in "SELECT 1; COPY message TO STDOUT", "SELECT 1; COPY message FROM STDIN":
        found = []
        for tracked in (False, True):
            with opened(pair, kind, tracked=tracked) as connection, connection.cursor() as cursor:
                with pytest.raises(psycopg.ProgrammingError) as caught:
                    cursor.execute(sql)
                found.append(str(caught.value))
        assert found[0] == found[1]


@pytest.mark.parametrize("sends", ["_execute_send", "_get_prepared"])
def test_a_cursor_class_that_overrides_how_psycopg_sends_a_statement_is_used(pair: PostgreSQLPair, sends: str) -> None:
    calls: list[str] = []

    def send(cursor: Any, *args: Any, **options: Any) -> Any:
        calls.append(sends)
        return getattr(psycopg.ClientCursor, sends)(cursor, *args, **options)

    kind = type("Sending", (psycopg.ClientCursor,), {sends: send})
    with opened(pair, kind, tracked=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert calls == [sends]
