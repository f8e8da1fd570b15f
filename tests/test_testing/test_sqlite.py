"""The copier of a SQLitePair."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.eventually import eventually

from replswitch.drivers.sqlite3 import DRIVER
from replswitch.positions import SQLitePosition
from replswitch.testing import PairError, SQLitePair

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[SQLitePair]:
    with SQLitePair(slaves=2) as pair, closing(pair.connect("master")) as connection:
        connection.execute("CREATE TABLE message (number INTEGER PRIMARY KEY, text TEXT)")
        pair.wait_caught_up()
        yield pair


class Wrapped:
    """What tools such as OpenTelemetry return instead of a connection. `Connection.backup` refuses it."""

    def __init__(self, wrapped: sqlite3.Connection) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> object:
        return getattr(self._wrapped, name)


def count(pair: SQLitePair, name: str) -> int:
    with closing(pair.connect(name)) as connection:
        return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def insert(pair: SQLitePair) -> None:
    with closing(pair.connect()) as connection:
        connection.execute("INSERT INTO message (text) VALUES ('hello')")


def test_the_parameters_of_a_server_are_the_path_of_a_file(pair: SQLitePair) -> None:
    assert set(pair.master) == {"database"}
    assert Path(pair.master["database"]).name == "master.db"
    assert [Path(slave["database"]).name for slave in pair.slaves] == ["slave.db", "slave2.db"]
    assert pair.driver == "sqlite3"


def test_f6_a_pair_replicates_if_a_tool_wraps_sqlite3_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: Wrapped(connect(*args, **options)))
    with SQLitePair() as pair:
        with closing(pair.connect()) as connection:
            connection.execute("CREATE TABLE message (number INTEGER PRIMARY KEY, text TEXT)")
        insert(pair)
        pair.wait_caught_up()
        assert count(pair, "slave") == 1


def test_a_lag_may_be_a_fraction_of_a_second(pair: SQLitePair) -> None:
    pair.lag = 0.3
    began = time.monotonic()
    insert(pair)
    eventually(lambda: count(pair, "slave"))
    assert time.monotonic() - began >= 0.3
    pair.wait_caught_up()
    assert count(pair, "slave") == count(pair, "slave2") == 1


def test_commits_arrive_in_their_order_one_lag_later(pair: SQLitePair) -> None:
    pair.lag = 0.3
    began: list[float] = []
    seen = [0]
    while seen[-1] < 12:
        if len(began) < 12:
            began.append(time.monotonic())
            insert(pair)
        time.sleep(0.05)
        seen.append(count(pair, "slave"))
        assert seen[-1] <= sum(moment + 0.3 <= time.monotonic() for moment in began)
    assert seen == sorted(seen)


def test_commits_of_another_process_arrive(pair: SQLitePair) -> None:
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        " connection.execute('INSERT INTO message (number) VALUES (7)'); connection.commit()"
    )
    subprocess.run([sys.executable, "-c", code, pair.master["database"]], check=True)
    pair.wait_caught_up()
    assert count(pair, "slave") == 1


def test_reads_of_slaves_and_the_copying_from_the_master_raise_no_error(pair: SQLitePair) -> None:
    """While the master is written as fast as it goes, slaves are read by new and by old connections."""
    over = threading.Event()
    errors: list[Exception] = []
    reads: list[int] = []

    def reader(name: str, statements: int) -> None:
        last = 0
        while not over.is_set():
            try:
                with closing(sqlite3.connect(pair.slaves[0]["database"].replace("slave", name))) as connection:
                    for _ in range(statements):
                        rows, highest = connection.execute("SELECT count(*), max(number) FROM message").fetchone()
                        assert rows == (highest or 0) >= last
                        last = rows
            except (sqlite3.Error, AssertionError) as error:
                errors.append(error)
                return
            reads.append(last)

    threads = [
        threading.Thread(target=reader, args=(name, statements)) for name in pair.slave_names for statements in (1, 50)
    ]
    for thread in threads:
        thread.start()
    with closing(pair.connect("master")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        written = 0
        until = time.monotonic() + 1.5
        while not errors and (time.monotonic() < until or len(reads) <= 20 or len(set(reads)) <= 3):
            connection.execute("INSERT INTO message (text) VALUES (?)", ("x" * 100,))
            written += 1
        pair.wait_caught_up()
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(pair, "slave") == count(pair, "slave2") == written


def test_a_long_transaction_of_a_reader_sees_one_snapshot_and_blocks_no_copy(pair: SQLitePair) -> None:
    with closing(pair.connect("slave")) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM message").fetchone() == (0,)
        for expected in (1, 2):
            insert(pair)
            pair.wait_caught_up()
            assert count(pair, "slave") == expected
            assert reader.execute("SELECT count(*) FROM message").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM message").fetchone() == (2,)


def test_a_rolled_back_transaction_does_not_arrive(pair: SQLitePair) -> None:
    with closing(pair.connect()) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO message (number) VALUES (1)")
        connection.execute("ROLLBACK")
    pair.wait_caught_up()
    assert count(pair, "slave") == 0


def test_a_long_lag_does_not_fill_the_memory(pair: SQLitePair) -> None:
    assert pair._copier is not None
    pair.lag = 60
    began = time.monotonic()
    while time.monotonic() < began + 1 or not pair._copier._snapshots:
        insert(pair)
    assert len(pair._copier._snapshots) <= (time.monotonic() - began) / 0.3 + 2
    pair.lag = 0
    pair.wait_caught_up()
    assert pair._copier._snapshots == []
    assert count(pair, "slave") == count(pair, "master")


def test_a_write_to_a_slave_is_undone_by_the_next_copy(pair: SQLitePair) -> None:
    with closing(sqlite3.connect(**pair.slaves[0], isolation_level=None)) as connection:
        connection.execute("INSERT INTO message (number) VALUES (100)")
        assert connection.execute("SELECT count(*) FROM message").fetchone() == (1,)
        insert(pair)
        pair.wait_caught_up()
        assert connection.execute("SELECT number FROM message").fetchall() == [(1,)]


def test_a_killed_file_cannot_be_opened_but_open_connections_go_on(pair: SQLitePair) -> None:
    with closing(pair.connect("master")) as master:
        master.execute("SELECT * FROM message").fetchall()
        pair.kill("master")
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
            pair.connect("master").close()
        master.execute("INSERT INTO message (number) VALUES (1)")
        assert count(pair, "slave") == 0
        pair.start("master")
        pair.wait_caught_up()
        assert count(pair, "slave") == 1


def test_an_error_of_the_thread_that_copies_to_slaves_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    pair = SQLitePair()
    pair.start()
    folder = Path(pair.master["database"]).parent
    try:
        with closing(pair.connect()) as connection:
            connection.execute("CREATE TABLE message (number INTEGER PRIMARY KEY)")
            pair.wait_caught_up()
            assert pair._copier is not None
            pair._copier._slaves["slave"].close()
            connection.execute("INSERT INTO message VALUES (1)")
        for _ in range(2):
            with pytest.raises(PairError, match="the copying of commits has failed") as raised:
                pair.wait_caught_up()
            assert isinstance(raised.value.__cause__, sqlite3.ProgrammingError)
        with pytest.raises(PairError, match="the copying of commits has failed"):
            pair.lag = 1
        assert "the copying of commits has failed" in caplog.text
    finally:
        with pytest.raises(PairError, match="the copying of commits has failed"):
            pair.close()
    assert not folder.exists()
    pair.close()


def test_a_slave_reaches_a_position_that_was_queried_late(pair: SQLitePair) -> None:
    """A writer reads the clock after its commit; the copy may have begun in between."""
    insert(pair)
    pair.wait_caught_up()
    late = SQLitePosition(time.time_ns())
    raw = DRIVER.open(pair.slaves[0], read_only=True)
    assert DRIVER.wait_for(raw, late, 30)
    pair.stop_slave()
    insert(pair)
    assert not DRIVER.wait_for(raw, SQLitePosition(time.time_ns()), 0.05)
    raw.close()
