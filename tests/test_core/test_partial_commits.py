"""What a statement has committed before its error is recorded as well (M1), with each driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.conftest import OF_BINDINGS, SERVED
from tests.partial_commits import INSERT, STATEMENTS, commits, has_committed, names, prepare, settings_for_several

from replswitch import carry, resume
from replswitch.decorators import use_master

if TYPE_CHECKING:
    from tests.conftest import Served
    from tests.test_core.conftest import Make

DRIVERS: Final = ("mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient", "postgresql", "postgresql-psycopg2")
CASES: Final = [(served, name) for served in DRIVERS for name in names({**SERVED, **OF_BINDINGS}[served][0])]


@pytest.mark.parametrize("in_transaction", [False, True], ids=["in autocommit", "in a transaction"])
@pytest.mark.parametrize(("served", "name"), CASES, indirect=["served"])
def test_m1_what_a_statement_has_committed_before_its_error_is_recorded(
    served: Served, make: Make, name: str, in_transaction: bool
) -> None:
    prepare(served.pair)
    db = make(master={**served.pair.master, **settings_for_several(served.pair)})
    with resume(""), use_master():
        if in_transaction:
            db.begin()
        *before, last = STATEMENTS[name]
        with db.cursor() as cursor:
            for sql in before:
                cursor.execute(sql)
            with pytest.raises(db.Error):  # noqa: PT012 - the error may come with a later result
                cursor.execute(last)
                while cursor.nextset():
                    pass
        db.rollback()
        is_known = commits(served.pair, name, in_transaction=in_transaction)
        assert (has_committed(served.pair), carry() != "") == (is_known, is_known)


@pytest.mark.parametrize("served", ["postgresql", "postgresql-psycopg2"], indirect=True)
@pytest.mark.parametrize(
    "sql",
    [
        *("/* a */ COMMIT; SELECT 1/0", "-- a\n;COMMIT; BEGIN; SELECT 1/0", "SELECT 1;; /* a */ END; SELECT 1/0"),
        "CREATE TABLE other (id INT); COMMIT; BEGIN; SELECT 1/0",
        "CREATE FUNCTION pg_temp.f() RETURNS INT BEGIN ATOMIC SELECT 1; END; COMMIT; SELECT 1/0",
        "DO $a$ BEGIN PERFORM 1; END $a$; COMMIT; BEGIN; SELECT 1/0",
    ],
)
def test_m1_a_commit_among_several_statements_that_fail_in_a_transaction_is_recorded(
    served: Served, make: Make, sql: str
) -> None:
    prepare(served.pair)
    db = make()
    with use_master(), db.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS other")
    with resume(""), use_master():
        db.begin()
        with db.cursor() as cursor:
            cursor.execute(INSERT)
            with pytest.raises(db.Error):
                cursor.execute(sql)
        db.rollback()
        assert has_committed(served.pair)
        assert carry() != ""


@pytest.mark.parametrize("served", ["postgresql", "postgresql-psycopg2"], indirect=True)
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE PROCEDURE commit_and_fail() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; COMMIT; END $$",
        "CREATE FUNCTION partial() RETURNS none BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "DO $a$ BEGIN PERFORM 1/0; COMMIT; END $a$",
    ],
    ids=["CREATE PROCEDURE", "CREATE FUNCTION", "DO"],
)
def test_m1_a_commit_in_the_body_of_a_definition_that_fails_in_a_transaction_makes_no_marker(
    served: Served, make: Make, sql: str
) -> None:
    prepare(served.pair)
    db = make()
    with resume(""), use_master():
        db.begin()
        with db.cursor() as cursor, pytest.raises(db.Error):
            cursor.execute(sql)
        db.rollback()
        assert carry() == ""


def by_executemany(cursor: Any) -> None:
    cursor.executemany("UPDATE partial SET id = %s WHERE id = %s", [(1, 5), (7, 6)])


def by_execute_batch(cursor: Any) -> None:
    from psycopg2.extras import execute_batch  # noqa: PLC0415 - not with each driver

    execute_batch(cursor, "INSERT INTO partial VALUES (%s)", [(1,), (5,)], page_size=1)


def by_execute_values(cursor: Any) -> None:
    from psycopg2.extras import execute_values  # noqa: PLC0415 - likewise

    cursor.execute("SELECT 1")  # execute_values() reads attributes that a cursor of connect() has only then
    execute_values(cursor, "INSERT INTO partial VALUES %s", [(1,), (5,)], page_size=1)


# psycopg runs the statements of executemany() in one transaction
MANY: Final = [(served, by_executemany) for served in DRIVERS if served != "postgresql"]


@pytest.mark.parametrize(
    ("served", "work"),
    [*MANY, ("postgresql-psycopg2", by_execute_batch), ("postgresql-psycopg2", by_execute_values)],
    indirect=["served"],
)
def test_m1_the_rows_that_several_statements_have_written_before_an_error_are_recorded(
    served: Served, make: Make, work: Callable[[Any], None]
) -> None:
    prepare(served.pair)
    db = make()
    with use_master(), db.cursor() as cursor:
        cursor.execute("INSERT INTO partial VALUES (6), (7)")
    with resume(""), use_master():
        with db.cursor() as cursor, pytest.raises(db.Error):
            work(cursor)
        assert has_committed(served.pair)
        assert carry() != ""


@pytest.mark.parametrize("served", DRIVERS, indirect=True)
def test_m1_a_statement_that_fails_in_a_transaction_without_a_commit_makes_no_marker(
    served: Served, make: Make
) -> None:
    prepare(served.pair)
    db = make()
    with use_master(), db.cursor() as cursor:
        cursor.execute("INSERT INTO partial VALUES (6)")
        assert carry() != ""
    with resume(""), use_master():
        db.begin()
        with db.cursor() as cursor, pytest.raises(db.Error):
            cursor.execute("INSERT INTO partial VALUES (6)")
        db.rollback()
        assert carry() == ""
