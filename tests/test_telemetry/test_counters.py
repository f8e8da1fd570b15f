"""The statements and the events of a process are counted, each exactly once."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from tests.test_telemetry.conftest import Make, ask, events, statements

from replswitch import Connection, SlaveWriteError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.telemetry import counters
from replswitch.telemetry.counters import STATEMENTS, Family, Tally

if TYPE_CHECKING:
    from types import FrameType

    from replswitch.testing import SQLitePair


def test_statements_are_counted_by_side_server_and_reason(db: Connection) -> None:
    name, (slave, master) = db.database.name, ("slave.db", "master.db")
    ask(db)
    with use_slave():
        ask(db)
        ask(db)
    with use_master(), db.cursor() as cursor:
        cursor.executemany("INSERT INTO message (body) VALUES (?)", [("one",), ("two",)])
    with use_slave():
        db.begin()
        ask(db)
        db.commit()
    assert statements(name) == {
        ("master", master, "default"): 1,
        ("slave", slave, "use_slave"): 3,
        ("master", master, "use_master"): 1,
    }


def test_a_write_that_moves_is_one_statement_on_the_master(db: Connection) -> None:
    with use_slave():
        ask(db, "INSERT INTO message (body) VALUES ('moved')")
    assert statements(db.database.name) == {("master", "master.db", "moved-write"): 1}
    assert events(db.database.name, "moved-write") == {"slave.db": 1}


def test_a_statement_that_fails_is_not_counted(make: Make) -> None:
    db = make(on_slave_write="error")
    with use_slave():
        with pytest.raises(db.Error):
            ask(db, "SELECT nonsense FROM message")
        with pytest.raises(SlaveWriteError):
            ask(db, "INSERT INTO message (body) VALUES ('refused')")
    assert statements(db.database.name) == {}


def test_an_event_counted_while_an_exporter_is_attached_reaches_it_once() -> None:
    tally = Tally(())
    tally.add()

    def add(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            tally.add()  # as another thread could, before each line
        return add if frame.f_code is Tally.forward.__code__ else None

    received: tuple[list[int], ...] = ([], [])
    for numbers in received:  # the second system begins later
        former = sys.gettrace()
        sys.settrace(add)
        try:
            tally.forward(numbers.append)
        finally:
            sys.settrace(former)
    assert [sum(numbers) for numbers in received] == [tally.value()] * 2


def test_statements_of_sqlalchemy_sessions_are_counted(pair: SQLitePair) -> None:
    master, slave = (create_engine(f"sqlite:///{each['database']}") for each in (pair.master, *pair.slaves))
    replicate(master, [slave], name="shop of sessions")
    session_class = sessionmaker(master, class_=RoutingSession)
    try:
        with use_slave(), session_class() as session:
            session.execute(text("SELECT COUNT(*) FROM message"))
            session.execute(text("SELECT COUNT(*) FROM message"))
        with session_class() as session:
            session.execute(text("INSERT INTO message (body) VALUES ('one')"))
            session.execute(text("SELECT COUNT(*) FROM message"))
            session.commit()
    finally:
        master.dispose()
        slave.dispose()
    counted = statements("shop of sessions")
    assert counted.pop(("slave", "slave.db", "use_slave")) == 2
    assert sum(counted.values()) == 2
    assert {labels[:2] for labels in counted} == {("master", "master.db")}


def test_waits_are_counted_by_their_outcome(make: Make, pair: SQLitePair, monkeypatch: pytest.MonkeyPatch) -> None:
    db = make(wait=20)
    wait_for = db._driver.wait_for

    def wait_for_started(*arguments: Any) -> bool:
        pair.start_slave()
        return wait_for(*arguments)

    monkeypatch.setattr(db._driver, "wait_for", wait_for_started)
    pair.stop_slave()
    with use_master():
        ask(db, "INSERT INTO message (body) VALUES ('waited for')")
        with use_slave():
            assert ask(db) == [(1,)]
    assert events(db.database.name, "wait") == {"slave.db": 1}
    monkeypatch.undo()
    impatient = make(wait=0.01)
    pair.stop_slave()
    with use_master():
        ask(impatient, "INSERT INTO message (body) VALUES ('missed')")
        with use_slave():
            assert ask(impatient) == [(2,)]
    assert events(impatient.database.name, "wait-expired") == {"slave.db": 1}
    assert events(impatient.database.name, "wait") == {}


def test_a_request_on_the_master_because_of_its_marker_is_counted_once(db: Connection, pair: SQLitePair) -> None:
    pair.stop_slave()
    with use_master():
        ask(db, "INSERT INTO message (body) VALUES ('mine')")
        token = carry()
    for _ in range(2):
        with resume(token), use_slave():
            ask(db)
            ask(db)
    assert events(db.database.name, "marker") == {"master.db": 2}
    assert statements(db.database.name)["master", "master.db", "marker"] == 4


def test_no_count_of_many_threads_is_lost() -> None:
    tally, times = Tally(()), 20_000
    read: list[int] = []
    threads = [threading.Thread(target=lambda: [tally.add() for _ in range(times)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        read.append(tally.value())
    assert tally.value() == 4 * times
    assert read == sorted(read), "a reading adds nothing"


def test_the_counters_of_a_forked_child_begin_at_0(db: Connection) -> None:
    ask(db)
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, repr(statements(db.database.name)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(receiving, 1000) == b"{}"
    for end in (receiving, sending):
        os.close(end)
    assert sum(statements(db.database.name).values()) == 1


def test_an_exporter_gets_the_earlier_counts_and_each_later_one(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "_sinks", [])
    monkeypatch.setattr(counters, "FAMILIES", (STATEMENTS,))
    ask(db)
    got: dict[Any, int] = {}

    def sink(family: Family, labels: tuple[str, ...]) -> Any:
        def add(number: int) -> None:
            got[labels] = got.get(labels, 0) + number

        return add if labels[0] == db.database.name else lambda number: None

    counters.forward(sink)
    ask(db)
    with use_slave():
        ask(db)
    assert got == {labels: number for labels, number in STATEMENTS.values().items() if labels[0] == db.database.name}
    assert sum(got.values()) == 3
