"""No statement makes a link for slave state writable (S7)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any

import pytest
from pymysql.constants import CLIENT

from replswitch import MASTER, Connection, SlaveWriteError
from replswitch.decorators import use_slave
from replswitch.testing import ReplicatedPair

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)

STATEMENTS = {
    "START TRANSACTION READ WRITE": "START TRANSACTION READ WRITE",
    "START TRANSACTION in small letters": "start transaction\n  read write",
    "SET SESSION TRANSACTION READ WRITE": "SET SESSION TRANSACTION READ WRITE",
    "SET TRANSACTION READ WRITE": "SET TRANSACTION READ WRITE",
    "SET of the variable": "SET @@{}=0",
    "SET of the variable in other letters": "set Session `{}`:=false",
    "SET with a comment after the variable": "SET {}/* x */ = 0",
    "SET to DEFAULT": "SET {} = DEFAULT",
    "SET to an expression": "SET {} = 1-1",
    "READ WRITE with a comment between": "SET SESSION TRANSACTION READ/**/WRITE",
    "READ WRITE with a line between": "START TRANSACTION READ -- x\n WRITE",
    "SET in an executable comment": "/*!50000 SET {} = 0 */",
    "PREPARE of SET": "PREPARE s FROM 'SET {} = 0'",
    "SET as the second statement": "SELECT 1; SET {} = 0",
    "CALL with SET": "CALL let_write()",
    "CALL with SET TRANSACTION": "CALL let_next_write()",
}

PROCEDURES = {
    "let_write": "SET SESSION {} = 0;",
    "let_next_write": "SET TRANSACTION READ WRITE;",
    "let_write_and_write": "SET SESSION {} = 0; INSERT INTO message (id) VALUES (1);",
    "begin_and_write": "START TRANSACTION READ WRITE; INSERT INTO message (id) VALUES (1); COMMIT;",
    "look": "SELECT COUNT(*) INTO @number FROM message;",
}


@pytest.fixture(autouse=True)
def procedures(make: Callable[..., Connection], replicated_pair: ReplicatedPair, variable: str) -> None:
    """Create the procedures on both servers."""
    with closing(replicated_pair.connect("master")) as master, master.cursor() as cursor:
        for name, body in PROCEDURES.items():
            cursor.execute(f"DROP PROCEDURE IF EXISTS {name}")
            cursor.execute(f"CREATE PROCEDURE {name}() BEGIN {body.format(variable)} END")
    replicated_pair.wait_caught_up()


@pytest.fixture
def variable(replicated_pair: ReplicatedPair) -> str:
    """The variable of a session's read-only mode."""
    return "tx_read_only" if "MariaDB" in type(replicated_pair).__name__ else "transaction_read_only"


def count(pair: ReplicatedPair, server: str) -> int:
    with closing(pair.connect(server)) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        return int(cursor.fetchone()[0])


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("has_slaves", [False, True])
def test_s7_after_a_statement_that_makes_its_link_writable_no_write_runs_on_the_slave(
    make: Callable[..., Connection],
    replicated_pair: ReplicatedPair,
    variable: str,
    statement: str,
    has_slaves: bool,
) -> None:
    settings = {**replicated_pair.master, "client_flag": CLIENT.MULTI_STATEMENTS}
    db = make(master=settings, slaves=replicated_pair.slaves if has_slaves else [])
    is_hidden = statement in {"SET as the second statement", "CALL with SET", "CALL with SET TRANSACTION"}
    refused = noticed = False
    with use_slave():
        try:
            run(db, STATEMENTS[statement].format(variable))
            run(db, "INSERT INTO message (id) VALUES (1)")
        except SlaveWriteError:
            refused = True
        except db.InternalError:  # it was not refused, as there are no slaves
            noticed = True
        else:
            assert db.queries[-1]["db"] == MASTER
            db.commit()
    assert is_hidden or not (refused or noticed)
    assert count(replicated_pair, "master") == (not refused)
    with use_slave(), db.use_slave():
        run(db, "SELECT 'read write'")
        assert db.queries[-1]["db"] == "slave"


@pytest.mark.parametrize("procedure", ["let_write_and_write", "begin_and_write"])
def test_s7_a_procedure_that_makes_its_link_writable_and_writes_raises_an_error(
    make: Callable[..., Connection], replicated_pair: ReplicatedPair, procedure: str, driver: str
) -> None:
    on_mysql = "MySQL" in type(replicated_pair).__name__
    is_seen = (procedure, driver, on_mysql) != ("begin_and_write", "mysqlclient", True)  # a documented limit of S7
    db = make(slaves=[])
    error = pytest.raises(db.InternalError, match="Run the statement in master state")
    with use_slave(), error if is_seen else nullcontext():
        run(db, f"CALL {procedure}()")
    with use_slave():
        run(db, "INSERT INTO message (id) VALUES (2)")
    assert db.queries[-1]["db"] == MASTER


def test_s7_a_procedure_that_only_reads_runs_on_the_slave(make: Callable[..., Connection]) -> None:
    db = make()
    with use_slave():
        run(db, "CALL look()")
        run(db, "SELECT 1")
    assert [query["db"] for query in db.queries] == ["slave"] * 2


def test_s7_a_statement_that_keeps_its_link_read_only_runs_on_the_slave(
    make: Callable[..., Connection], variable: str
) -> None:
    db = make()
    with use_slave():
        for sql in (f"SET SESSION {variable} = ON", f"SHOW VARIABLES LIKE '{variable}'", f"SELECT @@{variable}"):
            run(db, sql)
            assert db.queries[-1]["db"] == "slave"
