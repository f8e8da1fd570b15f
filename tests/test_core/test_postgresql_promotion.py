"""PostgreSQL without its master: what a visitor sees after a promotion, and after the loss of the master."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest

import replswitch
from replswitch import MASTER, SLAVE, Connection, NoServerError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import Driver, load_driver
from replswitch.positions import Position
from replswitch.testing import PostgreSQLPair


@pytest.fixture
def pair(postgresql_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS message")
        connection.execute("CREATE TABLE message (id INT PRIMARY KEY)")
    postgresql_pair.wait_caught_up()
    yield postgresql_pair
    postgresql_pair.reset()


def connect(pair: PostgreSQLPair) -> Connection:
    return replswitch.connect(pair.master, pair.slaves, driver="psycopg", name="shop", debug=True, downtime=0)


def write(db: Connection, number: int, token: str = "") -> str:
    """Write a number after what the token contains, and return the token of both."""
    with resume(token), use_master(), db.cursor() as cursor:
        cursor.execute("INSERT INTO message VALUES (%s)", (number,))
        return carry()


def read(db: Connection, token: str) -> tuple[str, list[int]]:
    """Return the side that serves, and the numbers."""
    with resume(token), use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT id FROM message ORDER BY id")
        return db.queries[-1]["db"], [row[0] for row in cursor.fetchall()]


def test_f3_a_visitor_who_wrote_before_and_after_a_promotion_reads_from_a_slave_while_the_master_is_down(
    pair: PostgreSQLPair,
) -> None:
    """Only a server that was asked before the promotion is known to have the first write. The second one is enough."""
    with connect(pair) as db:
        before = write(db, 1)
    pair.promote("slave")
    with connect(pair) as db:
        both = write(db, 2, before)
        pair.wait_caught_up()
        assert read(db, both) == (SLAVE, [1, 2])
        assert read(db, before) == (MASTER, [1, 2])
        pair.kill(pair.master_name)
        assert read(db, both) == (SLAVE, [1, 2])
        with pytest.raises(NoServerError):
            read(db, before)


def test_f3_a_position_after_the_last_record_that_a_lost_master_has_sent_is_not_reached(pair: PostgreSQLPair) -> None:
    """The position is queried after the commit, so it may include records of other sessions (docs/positions.md)."""
    with connect(pair) as db, closing(pair.admin()) as master, closing(pair.admin("slave")) as slave:
        with resume(""), use_master(), db.cursor() as cursor:
            cursor.executemany("INSERT INTO message VALUES (%s)", [(1,), (2,)])
            pair.wait_caught_up()
            for (sender,) in master.execute("SELECT pid FROM pg_stat_replication").fetchall():
                os.kill(sender, signal.SIGSTOP)  # or the server flushes and sends the next record with one of its own
            master.execute("BEGIN")
            master.execute("INSERT INTO message VALUES (3)")  # not committed
            late = carry()  # asks
        pair.kill("master")
        with pytest.raises(NoServerError):
            read(db, late)
        assert slave.execute("SELECT id FROM message ORDER BY id").fetchall() == [(1,), (2,)]


def test_p4_a_former_master_that_cannot_follow_the_new_master_stays_on_its_old_timeline() -> None:
    """It has the history of the new timeline, but no file of it, because it has a commit that the new master lacks."""
    driver = load_driver("psycopg")
    with PostgreSQLPair(slaves=2) as lossy:
        with closing(lossy.connect()) as connection:
            connection.execute("CREATE TABLE message (id INT PRIMARY KEY)")
        lossy.wait_caught_up()
        for name in lossy.slave_names:
            lossy.stop_slave(name)
        lost = written(driver, lossy, [1])
        lossy.kill("master")
        with closing(lossy.admin("slave")) as admin:
            admin.execute("SELECT pg_promote()")
        lossy.master_name = "slave"
        lossy.start_slave("slave2")
        lossy.start("master")
        newer = written(driver, lossy, range(2, 30))
        settings = dict(zip(lossy.slave_names, lossy.slaves, strict=True))
        with closing(lossy.admin("slave2")) as admin:
            while admin.execute("SELECT FROM message").rowcount < 28:
                time.sleep(0.01)
        lossy.kill("slave")  # without its source, a slave shows its timeline only by its files
        for name, has in (("master", (True, False)), ("slave2", (False, True))):
            with closing(lossy.admin(name)) as admin:
                while admin.execute("SELECT FROM pg_stat_wal_receiver").rowcount:
                    time.sleep(0.01)
            fresh = driver.for_database()  # it has not seen the servers before
            with closing(fresh.open(settings[name], read_only=True)) as raw:
                reached = fresh.fetch_position(raw)[1]
            assert reached is not None
            assert (reached.includes(lost), reached.includes(newer)) == has, name


def written(driver: Driver, pair: PostgreSQLPair, numbers: Iterable[int]) -> Position:
    """Write numbers, and return the position of the last commit."""
    with closing(driver.open(pair.master, read_only=False)) as raw:
        for number in numbers:
            raw.execute(f"INSERT INTO message VALUES ({number})")
        position = driver.writes_of(raw).pop_write_status()
    assert isinstance(position, Position)
    return position
