"""The positions of PostgreSQL on real servers: a commit is reached exactly where it is visible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from tests.eventually import eventually

from replswitch.drivers import load_driver
from replswitch.drivers.postgresql_position import POSITION, Timelines
from replswitch.positions import Position, PostgreSQLPosition
from replswitch.positions.clock import _logged
from replswitch.testing import PostgreSQLPair


@pytest.fixture
def pair(postgresql_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS message")
        connection.execute("CREATE TABLE message (id INT PRIMARY KEY, body TEXT)")
    postgresql_pair.wait_caught_up()
    yield postgresql_pair
    postgresql_pair.reset()


@pytest.fixture
def known() -> Timelines:
    """What is known of the servers of one database: nothing yet."""
    return Timelines()


def ask(connection: psycopg.Connection[Any], known: Timelines | None = None) -> tuple[Any, Position]:
    row = connection.execute(POSITION).fetchone()
    assert row is not None
    identity, position = (known or Timelines()).position_of(row)
    assert position is not None
    return identity, position


def position(pair: PostgreSQLPair, name: str, known: Timelines | None = None) -> Position:
    with closing(pair.connect(name)) as connection:
        return ask(connection, known)[1]


def write(pair: PostgreSQLPair, number: int, known: Timelines | None = None) -> Position:
    with closing(pair.connect()) as connection:
        connection.execute(f"INSERT INTO message VALUES ({number})")
        return ask(connection, known)[1]


def read(pair: PostgreSQLPair, name: str) -> list[int]:
    with closing(pair.connect(name)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM message ORDER BY id")]


def reach(connection: psycopg.Connection[Any], wanted: Position) -> bool:
    return eventually(lambda: ask(connection)[1].includes(wanted), every=0)


@pytest.mark.parametrize("commits", ["on", "off"], ids=["synchronous_commit=on", "synchronous_commit=off"])
def test_a_commit_is_visible_on_a_slave_as_soon_as_its_position_is_reached(pair: PostgreSQLPair, commits: str) -> None:
    missed: list[int] = []

    def work(first: int) -> None:
        with closing(pair.connect()) as master, closing(pair.connect("slave")) as slave:
            master.execute(f"SET synchronous_commit = {commits}")
            for number in range(first, first + 60):
                master.execute("INSERT INTO message VALUES (%s, %s)", (number, "x" * (number % 97)))
                if not reach(slave, ask(master)[1]):
                    missed.append(-number)
                if slave.execute("SELECT 1 FROM message WHERE id = %s", (number,)).fetchone() is None:
                    missed.append(number)

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missed == []


def test_a_commit_that_ends_at_a_page_of_the_log_is_reached_by_an_idle_slave(pair: PostgreSQLPair) -> None:
    """The insert position is then after the header of the next page, where a slave gets with the next record only."""
    seen: set[int] = set()
    with closing(pair.connect()) as master, closing(pair.connect("slave")) as slave:
        for number in range(8000):
            # Messages of a length that ends exactly at the page: what is left of it, without the record's own bytes.
            row = master.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            assert row is not None
            left = 8192 - int(row[0]) % 8192
            size = left - 56 if 64 < left < 300 else 150
            master.execute("SELECT pg_logical_emit_message(true, '', repeat('x', %s))", (max(size - number % 48, 1),))
            row = master.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            assert row is not None
            if int(row[0]) % 8192 in (24, 40):
                wanted = ask(master)[1]
                assert reach(slave, wanted), (number, str(wanted))
                seen.add(number)
                if len(seen) == 3:
                    break
    assert seen


def test_a_lost_write_does_not_count_as_reached_on_the_timeline_of_the_promoted_server(pair: PostgreSQLPair) -> None:
    with PostgreSQLPair(slaves=2) as lossy:
        with closing(lossy.connect()) as connection:
            connection.execute("CREATE TABLE message (id INT PRIMARY KEY)")
        kept = write(lossy, 1)
        lossy.wait_caught_up()
        for name in lossy.slave_names:
            lossy.stop_slave(name)
        lost = write(lossy, 2)
        lossy.kill("master")
        # The slave is promoted without what it lacks, and the other one follows it.
        with closing(lossy.admin("slave")) as admin:
            admin.execute("SELECT pg_promote()")
        lossy.master_name = "slave"
        lossy.start_slave("slave2")
        with closing(lossy.connect("slave")) as master, closing(lossy.connect("slave2")) as slave:
            for number in range(3, 60):
                master.execute("INSERT INTO message VALUES (%s)", (number,))
            identity, newer = ask(master)
            assert reach(slave, newer)
            places = [each.places[0] for each in (kept, lost, newer) if isinstance(each, PostgreSQLPosition)]
            assert [timeline for timeline, _ in places] == [1, 1, 2]
            assert places[2][1] > places[1][1] > places[0][1], "the log must have passed the place of the lost write"
            assert read(lossy, "slave2") == [1, *range(3, 60)]
            for connection in (master, slave):
                assert not ask(connection)[1].includes(lost)
            assert lost.is_written_by(identity)


def test_each_server_has_an_identity_that_changes_with_its_start(pair: PostgreSQLPair) -> None:
    def identity(name: str) -> Any:
        with closing(pair.connect(name)) as one, closing(pair.connect(name)) as other:
            assert ask(one)[0] == ask(other)[0]
            return ask(one)[0]

    before = [identity(name) for name in pair.names]
    assert len({each[1] for each in before}) == 1
    assert len(set(before)) == len(before)
    pair.kill("slave")
    pair.start("slave")
    pair.wait_caught_up()
    assert identity("slave") not in before
    assert identity("master") in before


def test_a_position_that_a_slave_had_before_a_promotion_counts_for_all_servers_after_the_promotion(
    known: Timelines,
) -> None:
    with PostgreSQLPair(slaves=2) as three:
        with closing(three.connect()) as connection:
            connection.execute("CREATE TABLE message (id INT PRIMARY KEY)")
        seen = write(three, 1)
        three.wait_caught_up()
        assert position(three, "slave", known).includes(seen)
        unseen = write(three, 2)
        three.promote("slave")
        newer = write(three, 3, known)
        three.wait_caught_up()
        for name in three.slave_names:  # one follows without a restart, the old master was started again
            assert position(three, name, known).includes(seen)
            assert position(three, name, known).includes(newer.merge(seen))
            assert not position(three, name, known).includes(unseen), "nothing shows that it was not lost"


def answer(server: str, timeline: int | None, place: str, **more: Any) -> list[Any]:
    """An answer to `POSITION` of a slave."""
    stored = more.get("stored", (0, None))
    return ["5", server, True, place, timeline, 8192, 2**24, *stored, False, 1, "700"]


@pytest.mark.parametrize("receives", [True, False], ids=["still receiving from the master", "without its source"])
def test_p4_a_server_that_applies_late_has_reached_only_the_applied_part_of_an_earlier_timeline(
    receives: bool, known: Timelines
) -> None:
    """A server that applies late receives the new timeline before it has applied all of the old one."""
    known.position_of(answer("first", 1, "0/180"))
    known.position_of(answer("first", 2, "0/190"))
    shows = {"timeline": 2} if receives else {"timeline": None, "stored": (2, "0/100")}
    _, late = known.position_of(answer("late", place="0/100", **shows))
    assert late is not None
    assert late.includes(PostgreSQLPosition.parse("1:0/100"))
    assert not late.includes(PostgreSQLPosition.parse("1:0/150"))
    _, caught_up = known.position_of(answer("late", 2, "0/190"))
    assert caught_up is not None
    assert caught_up.includes(PostgreSQLPosition.parse("1:0/180"))


def test_a_slave_reports_a_promotion_as_a_new_timeline(pair: PostgreSQLPair, known: Timelines) -> None:
    old = write(pair, 1)
    pair.wait_caught_up()
    assert position(pair, "slave", known).includes(old)
    pair.promote("slave")
    newer = write(pair, 2, known)
    with closing(pair.connect("master")) as connection:
        assert reach(connection, newer)
    assert read(pair, "master") == [1, 2]
    assert position(pair, "master", known).includes(old), "the slave had it, so it is on the new timeline"


def test_an_account_without_pg_monitor_gets_no_position_beyond_the_real_one(
    pair: PostgreSQLPair, caplog: pytest.LogCaptureFixture
) -> None:
    _logged.clear()
    with closing(pair.admin()) as admin:
        admin.execute("DROP ROLE IF EXISTS blind")
        admin.execute("CREATE ROLE blind LOGIN PASSWORD 'blind'")
    wanted = write(pair, 1)
    pair.wait_caught_up()
    parameters = {**pair.slaves[0], "user": "blind", "password": "blind"}
    with closing(psycopg.connect(**parameters, autocommit=True)) as slave, closing(pair.admin("slave")) as admin:
        for number in range(2, 30):
            write(pair, number)
            row = slave.execute(POSITION).fetchone()
            assert row is not None
            reached = Timelines().position_of(row)[1]
            assert reached is None or ask(admin)[1].includes(reached)
        assert "GRANT pg_monitor" in caplog.text
        for _ in range(2):
            admin.execute("CHECKPOINT")  # the slave notes how far it is
        assert reach(slave, wanted)


@pytest.mark.parametrize("promoted", [False, True], ids=["on the first timeline", "after a promotion"])
def test_a_slave_whose_master_is_gone_reports_the_position_that_it_has_applied(
    pair: PostgreSQLPair, promoted: bool
) -> None:
    if promoted:
        pair.promote("slave")
    slave = pair.slave_names[0]
    driver = load_driver("psycopg").for_database()
    with closing(driver.open(pair.slaves[0], read_only=True)) as raw, closing(pair.connect()) as connection:
        for number in range(30):
            connection.execute("INSERT INTO message VALUES (%s)", (number,))
        wanted = ask(connection)[1]
        pair.wait_caught_up()
        pair.kill(pair.master_name)
        with closing(pair.admin(slave)) as admin:
            while admin.execute("SELECT FROM pg_stat_wal_receiver").rowcount:
                time.sleep(0.01)
        reached = driver.fetch_position(raw)[1]
        assert reached is not None
        assert reached.includes(wanted)
        raw.may_list_files = False  # another account; then it has what a question has shown
        assert driver.fetch_position(raw) == (driver.fetch_position(raw)[0], reached)


def test_a_stopped_slave_has_reached_only_the_writes_that_it_has_applied(pair: PostgreSQLPair) -> None:
    wanted = write(pair, 1)
    pair.wait_caught_up()
    pair.stop_slave()
    assert position(pair, "slave").includes(wanted)
    assert not position(pair, "slave").includes(write(pair, 2))
