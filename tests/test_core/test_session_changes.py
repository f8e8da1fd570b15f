"""A write does not move away from a session that a read on the slave has changed (S8)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from replswitch import Connection, SlaveWriteError
from replswitch.decorators import use_slave
from replswitch.testing import ReplicatedPair

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH n AS (SELECT 5 AS i) SELECT @x := i FROM n",
        "(SELECT @x := 5)",
        "/* of the list */ SELECT @x := 5",
        "DO @x := 5",
        "DO GET_LOCK('a', 0)",
        "SELECT LAST_INSERT_ID(5)",
        "CALL set_and_show()",
    ],
)
def test_s8_a_write_after_a_read_that_leaves_something_in_the_session_is_refused(
    make: Callable[..., Connection], replicated_pair: ReplicatedPair, sql: str
) -> None:
    db = make()
    with closing(replicated_pair.connect("master")) as master, master.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS set_and_show")
        cursor.execute("CREATE PROCEDURE set_and_show() BEGIN SET @x = 5; SELECT 1; END")
    replicated_pair.wait_caught_up()
    with use_slave(), db.cursor() as cursor:
        cursor.execute(sql)
        cursor.fetchall()
        with pytest.raises(SlaveWriteError, match="changed the session"):
            cursor.execute("INSERT INTO message (id) VALUES (@x)")


def test_s8_a_write_after_a_read_of_last_insert_id_moves_to_the_master(make: Callable[..., Connection]) -> None:
    with use_slave(), make().cursor() as cursor:
        cursor.execute("SELECT LAST_INSERT_ID()")
        cursor.fetchall()
        cursor.execute("INSERT INTO message (id) VALUES (1)")
