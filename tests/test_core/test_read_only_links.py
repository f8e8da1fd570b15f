"""No statement makes a link for slave state writable (S7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from replswitch import MASTER, Connection
from replswitch.decorators import use_slave
from replswitch.testing import ReplicatedPair

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)

STATEMENTS = {
    "transaction": "START TRANSACTION READ WRITE",
    "in small letters": "start transaction\n  read write",
    "session": "SET SESSION TRANSACTION READ WRITE",
    "next": "SET TRANSACTION READ WRITE",
    "variable": "SET @@{}=0",
}


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("has_slaves", [False, True])
def test_s7_a_statement_that_makes_its_link_writable_runs_on_the_master(
    make: Callable[..., Connection], replicated_pair: ReplicatedPair, statement: str, has_slaves: bool
) -> None:
    db = make(slaves=replicated_pair.slaves if has_slaves else [])
    variable = "tx_read_only" if "MariaDB" in type(replicated_pair).__name__ else "transaction_read_only"
    with use_slave():
        run(db, STATEMENTS[statement].format(variable))
        assert db.queries[-1]["db"] == MASTER
        run(db, "INSERT INTO message (id) VALUES (1)")
        assert db.queries[-1]["db"] == MASTER
        db.commit()
        assert run(db, "SELECT COUNT(*) FROM message") == ((1,),)
    with use_slave(), db.use_slave():
        run(db, "SELECT 'read write'")
        assert db.queries[-1]["db"] == "slave"
