"""MySQL only: the server reports a transaction that changed nothing, and does not report a function that wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.state import Frame
from replswitch.testing import MySQLPair


@pytest.fixture
def db(mysql_pair: MySQLPair) -> Iterator[Connection]:
    with mysql_pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS message, other")
        cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(100))")
    mysql_pair.wait_caught_up()
    with replswitch.connect(master=mysql_pair.master, slaves=mysql_pair.slaves) as db:
        yield db


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def wrote(frame: Frame) -> bool:
    return frame.scope.wrote is not None


@pytest.mark.parametrize("sql", ["INSERT INTO message (body) VALUES ('x')", "CREATE TABLE other (id INT)"])
@pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "autocommit"])
def test_m1_a_statement_that_writes_is_recorded(db: Connection, sql: str, transaction: bool) -> None:
    with db.use_master() as frame:
        if transaction:
            db.begin()
        run(db, sql)
        if transaction:
            db.commit()
        assert wrote(frame)


@pytest.mark.parametrize(
    "sql", ["SELECT COUNT(*) FROM message", "UPDATE message SET body = 'x' WHERE id = 9", "SET @a = 1", "USE shop"]
)
@pytest.mark.parametrize("end", ["commit", "rollback", None], ids=["commit", "rollback", "autocommit"])
def test_m1_a_statement_that_writes_nothing_is_not_recorded(db: Connection, sql: str, end: str | None) -> None:
    with db.use_master() as frame:
        if end:
            db.begin()
        run(db, sql)
        if end:
            getattr(db, end)()
        assert not wrote(frame)


def test_m1_a_procedure_that_writes_after_its_rows_is_recorded(db: Connection) -> None:
    run(db, "DROP PROCEDURE IF EXISTS post")
    run(db, "CREATE PROCEDURE post() BEGIN SELECT 1; INSERT INTO message (body) VALUES ('p'); END")
    with db.use_master() as frame:
        with db.cursor() as cursor:
            cursor.callproc("post")
            assert cursor.fetchall() == ((1,),)
            cursor.nextset()
        assert wrote(frame)


def test_m1_a_function_that_writes_is_recorded_after_its_row(db: Connection, mysql_pair: MySQLPair) -> None:
    for name in mysql_pair.names:
        with mysql_pair.admin(name) as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL log_bin_trust_function_creators = ON")
    run(db, "DROP FUNCTION IF EXISTS post")
    run(
        db,
        "CREATE FUNCTION post() RETURNS INT MODIFIES SQL DATA"
        " BEGIN INSERT INTO message (body) VALUES ('f'); RETURN 1; END",
    )
    with db.use_master() as frame:
        run(db, "SELECT post()")
        run(db, "SET @a = 1")
        assert wrote(frame)
