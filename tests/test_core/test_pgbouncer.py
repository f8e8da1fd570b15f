"""connect() on PostgreSQL servers behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.bouncer import DROPS_OPTIONS, bouncers

import replswitch
from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.testing import PostgreSQLPair


@pytest.fixture(params=["PgBouncer refuses options", "PgBouncer drops options"])
def db(request: pytest.FixtureRequest, postgresql_pair: PostgreSQLPair) -> Iterator[Connection]:
    pair = postgresql_pair
    with closing(pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS message")
        connection.execute("CREATE TABLE message (id INT PRIMARY KEY, body TEXT)")
        connection.execute(
            "CREATE OR REPLACE FUNCTION add(number INT) RETURNS INT LANGUAGE sql AS"
            " 'INSERT INTO message VALUES (number) RETURNING id'"
        )
    pair.wait_caught_up()
    more = DROPS_OPTIONS if request.param == "PgBouncer drops options" else {}
    with (
        bouncers(pair, **more) as (master, slave),
        replswitch.connect({**pair.master, "port": master}, [{"port": slave}], driver="psycopg", debug=True) as db,
    ):
        yield db
    pair.reset()


def rows(db: Connection, sql: str, *values: object) -> list[Any]:
    with db.cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def side(db: Connection) -> str:
    return db.queries[-1]["db"]


COUNT = "SELECT COUNT(*) FROM message"


def test_visitors_see_their_own_writes(db: Connection, postgresql_pair: PostgreSQLPair) -> None:
    with resume(""), use_slave():
        assert rows(db, COUNT) == [(0,)]
        assert side(db) == SLAVE
    postgresql_pair.stop_slave()
    for number in range(12):  # often enough for statements that psycopg would prepare
        with resume(""), use_master():
            rows(db, "INSERT INTO message VALUES (%s)", number)
            token = carry()
            assert '"postgresql:' in token
        with resume(token), use_slave():
            assert rows(db, COUNT) == [(number + 1,)]
            assert side(db) == MASTER
    postgresql_pair.start_slave()
    postgresql_pair.wait_caught_up()
    with resume(token), use_slave():
        assert rows(db, COUNT) == [(12,)]
        assert side(db) == SLAVE


@pytest.mark.parametrize("behind", [False, True], ids=["after a read on the slave", "after a read on the master"])
@pytest.mark.parametrize("sql", ["INSERT INTO message VALUES (2)", "SELECT add(2)", "TRUNCATE message"])
def test_a_write_in_slave_state_moves_to_the_master(
    db: Connection, postgresql_pair: PostgreSQLPair, sql: str, behind: bool
) -> None:
    postgresql_pair.stop_slave()
    with resume(""), use_master():
        rows(db, "INSERT INTO message VALUES (1)")
        token = carry()
    with resume(token if behind else ""), use_slave():
        assert rows(db, "SELECT %s::int", 7) == [(7,)]
        assert side(db) == (MASTER if behind else SLAVE)
        before = carry()
        rows(db, sql)
        assert carry() != before
        db.begin()
        rows(db, "INSERT INTO message VALUES (3)")
        db.commit()
    with use_master():
        assert rows(db, "SELECT id FROM message ORDER BY id")[-1] == (3,)


def test_a_read_only_connection_to_the_master_refuses_every_kind_of_write(
    db: Connection, postgresql_pair: PostgreSQLPair
) -> None:
    driver, error = load_driver("psycopg"), db.Error
    with closing(driver.open(db.servers.master.source.settings, read_only=True)) as raw:
        write = "INSERT INTO message VALUES (1)"
        cursor = raw.cursor()
        with pytest.raises(error):
            cursor.execute(write)
        with pytest.raises(error):
            cursor.executemany("INSERT INTO message VALUES (%s)", [(1,), (2,)])
        with pytest.raises(error), cursor.copy("COPY message (id) FROM STDIN") as copy:
            copy.write_row((1,))
        with pytest.raises(error):
            list(cursor.stream("INSERT INTO message VALUES (1) RETURNING id"))
        driver.begin(raw)
        with pytest.raises(error):
            cursor.execute(write)
        driver.rollback(raw)
        cursor.execute("BEGIN")
        with pytest.raises(error):
            cursor.execute(write)
        driver.rollback(raw)
        with pytest.raises(error):
            cursor.execute(f"SELECT 1; {write}")
        assert cursor.execute(COUNT).fetchall() == [(0,)]
        driver.adopt(raw, read_only=True, begin="")  # SQLAlchemy begins transactions by itself
        with pytest.raises(error):
            cursor.execute(write)
        driver.rollback(raw)
        assert cursor.execute(COUNT).fetchall() == [(0,)]


def test_a_prepare_threshold_behind_pgbouncer_is_reported_once(
    postgresql_pair: PostgreSQLPair, caplog: pytest.LogCaptureFixture
) -> None:
    driver = load_driver("psycopg")
    with bouncers(postgresql_pair) as (port, _):
        for _ in range(2):
            driver.open({**postgresql_pair.master, "port": port, "prepare_threshold": 5}, read_only=False).close()
        (line,) = [record.getMessage() for record in caplog.records]
        assert f"127.0.0.1:{port}" in line
        assert "PgBouncer 1.22" in line
        driver.open({**postgresql_pair.master, "port": port, "prepare_threshold": None}, read_only=False).close()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("db", ["PgBouncer drops options"], indirect=True)
def test_s7_a_link_to_a_slave_stays_read_only_when_the_slave_is_promoted(
    db: Connection, postgresql_pair: PostgreSQLPair
) -> None:
    with resume(""), use_slave():
        assert rows(db, COUNT) == [(0,)]
        assert side(db) == SLAVE
    postgresql_pair.promote("slave")
    with resume(""), use_slave(), pytest.raises(replswitch.ReplSwitchError):
        rows(db, "INSERT INTO message VALUES (1)")  # the master's entry still leads to the former master
    with closing(postgresql_pair.connect()) as connection:
        assert connection.execute(COUNT).fetchone() == (0,)
