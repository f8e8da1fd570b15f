"""P4: a process that uses clones, which are PostgreSQL sets with one system identifier, keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.conftest import Clones
from tests.eventually import eventually

import replswitch
from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import PostgreSQLPair, Proxy


@pytest.fixture
def blue() -> Iterator[PostgreSQLPair]:
    yield from with_table()


@pytest.fixture
def green() -> Iterator[PostgreSQLPair]:
    yield from with_table()


def with_table() -> Iterator[PostgreSQLPair]:
    with PostgreSQLPair(slaves=2) as pair:
        with closing(pair.connect()) as connection:
            connection.execute("CREATE TABLE message (id INT PRIMARY KEY)")
        pair.wait_caught_up()
        yield pair


def connect(name: str, pair: PostgreSQLPair) -> Connection:
    """Connect to the master and to the second slave of a pair, which stays a slave when the first one is promoted."""
    slave = {**pair.master, "port": port_of_second_slave(pair)}
    return replswitch.connect(pair.master, [slave], driver="psycopg", name=name, debug=True, known_for=0)


def port_of_second_slave(pair: PostgreSQLPair) -> int:
    port: int = pair.slaves[pair.slave_names.index("slave2")]["port"]
    return port


def fill(pair: PostgreSQLPair, first: int, last: int) -> None:
    """Write numbers, each in a transaction of its own."""
    with closing(pair.connect()) as connection:
        for number in range(first, last):
            connection.execute("INSERT INTO message VALUES (%s)", (number,))


def write(db: Connection, number: int) -> str:
    with resume(""), use_master(), db.cursor() as cursor:
        cursor.execute("INSERT INTO message VALUES (%s)", (number,))
        return carry()


def read(db: Connection, token: str) -> tuple[str, list[int]]:
    """Return the side that serves, and the first numbers."""
    with resume(token), use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT id FROM message WHERE id < 3 ORDER BY id")
        return db.queries[-1]["db"], [row[0] for row in cursor.fetchall()]


def lose_a_write(pair: PostgreSQLPair, db: Connection) -> str:
    """Promote the first slave after a write that no slave has. Return the token of this write."""
    for name in pair.slave_names:
        pair.stop_slave(name)
    token = write(db, 2)
    pair.kill("master")
    with closing(pair.admin("slave")) as admin:
        admin.execute("SELECT pg_promote()")
    pair.master_name = "slave"
    pair.start_slave("slave2")
    return token


def wait_for_second_slave(pair: PostgreSQLPair, count: int) -> None:
    with closing(pair.admin("slave2")) as admin:
        eventually(lambda: admin.execute("SELECT FROM message").rowcount >= count)


def test_p4_a_lost_write_does_not_count_as_reached_after_the_promotion_of_a_clone(
    blue: PostgreSQLPair, green: PostgreSQLPair
) -> None:
    """Both sets are on their second timeline. That of blue begins later in the log than that of green."""
    with connect("green", green) as db:
        lost = lose_a_write(green, db)
    fill(green, 10, 510)
    wait_for_second_slave(green, 500)
    with connect("blue", blue) as db_blue, connect("green", green) as db_green:
        fill(blue, 10, 110)
        kept = write(db_blue, 1)
        blue.wait_caught_up()
        assert read(db_blue, kept) == (SLAVE, [1])
        blue.promote("slave")
        assert read(db_blue, kept) == (SLAVE, [1]), "the process saw the slave before and after the promotion"
        assert read(db_green, lost) == (MASTER, [])


@pytest.mark.parametrize("connects", ["before the promotion", "after the promotion"])
def test_p4_a_lost_write_does_not_count_as_reached_after_a_restore_from_a_backup(
    blue: PostgreSQLPair, green: PostgreSQLPair, connects: str
) -> None:
    """The set behind the addresses is restored from a backup of its first timeline, and a slave is promoted again.

    The process connects to the restored master before or after this promotion.
    """
    with Proxy(blue.master["port"]) as master, Proxy(port_of_second_slave(blue)) as slave:

        def lead_to(pair: PostgreSQLPair) -> None:
            master.target, slave.target = pair.master["port"], port_of_second_slave(pair)
            master.cut()
            slave.cut()

        account = {"user": "of_both", "password": "of_both"}
        for pair in (blue, green):
            with closing(pair.admin()) as admin:
                admin.execute("CREATE ROLE of_both LOGIN SUPERUSER PASSWORD 'of_both'")
            pair.wait_caught_up()
        addresses = [{**blue.master, **account, "port": proxy.port} for proxy in (master, slave)]
        with replswitch.connect(addresses[0], addresses[1:], driver="psycopg", debug=True, known_for=0) as db:
            fill(blue, 10, 1010)
            kept = write(db, 1)
            blue.wait_caught_up()
            assert read(db, kept) == (SLAVE, [1])
            blue.promote("slave")
            lead_to(blue)
            write(db, 3)
            assert read(db, kept) == (SLAVE, [1])
            lead_to(green)
            with connect(db.database.set_name, green) as other:
                lost = lose_a_write(green, db if connects == "before the promotion" else other)
            fill(green, 10, 510)
            wait_for_second_slave(green, 500)
            lead_to(green)
            write(db, 3)
            assert read(db, lost) == (MASTER, [])


def test_p4_the_master_of_a_clone_given_as_a_slave_serves_no_read_that_must_see_a_write(clones: Clones) -> None:
    """It is given as a slave by mistake. Its log is longer, but is not that of the master."""
    with (
        replswitch.connect(clones.longer.master, clones.longer.slaves, driver="psycopg", name="longer") as other,
        replswitch.connect(clones.shorter.master, [clones.longer.master], driver="psycopg", name="shorter") as db,
    ):
        with resume(""), use_master(), other.cursor() as cursor:
            cursor.execute("INSERT INTO message (body) VALUES ('other')")
        with resume(""), use_master(), db.cursor() as cursor:
            cursor.execute("INSERT INTO message (body) VALUES ('mine') RETURNING id")
            row = cursor.fetchone()
            with use_slave():
                cursor.execute("SELECT body FROM message WHERE id = %s", row)
                assert cursor.fetchone() == ("mine",)
