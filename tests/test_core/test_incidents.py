"""A lasting incident is logged when it begins and when it ends, and counted in between (F5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pymysql
import pytest

from replswitch import Connection, NoServerError, stats
from replswitch.decorators import use_master, use_slave
from replswitch.engine.events import EVENTS
from replswitch.testing import ReplicatedPair
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from replswitch.engine.events import Event

    Make = Callable[..., Connection]

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)


@contextmanager
def set_global(pair: ReplicatedPair, variable: str, value: object) -> Iterator[None]:
    assert isinstance(pair, ServerPair)
    with closing(pair.admin("master")) as admin, admin.cursor() as cursor:
        cursor.execute(f"SELECT @@GLOBAL.{variable}")
        ((before,),) = cursor.fetchall()
        cursor.execute(f"SET GLOBAL {variable} = {value}")
        try:
            yield
        finally:
            cursor.execute(f"SET GLOBAL {variable} = {before}")


def post(db: Connection, number: int) -> None:
    """Write, and then read in slave state in the same scope, which may ask for the position of the write."""
    with use_master(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        cursor.fetchall()
        cursor.execute("INSERT INTO message (id, body) VALUES (%s, 'x')", (number,))
        with use_slave():
            cursor.execute("SELECT COUNT(*) FROM message")
            cursor.fetchall()


def read(db: Connection) -> None:
    with use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        cursor.fetchall()


class Events:
    """The events of one database: how many lines were logged, and how often each was counted."""

    def __init__(self, caplog: pytest.LogCaptureFixture, db: Connection) -> None:
        self._caplog = caplog
        self._name = db.database.name
        self._before = {event: self._counted(event) for event in EVENTS}

    def _counted(self, event: Event) -> int:
        return sum(number for (name, *_), number in stats()[event].items() if name == self._name)

    def counted(self, event: Event) -> int:
        return self._counted(event) - self._before[event]

    def lines(self) -> list[str]:
        return [record.replswitch["event"] for record in self._caplog.records if hasattr(record, "replswitch")]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture, db: Connection) -> Events:
    caplog.set_level(logging.WARNING, "replswitch.servers")
    return Events(caplog, db)


class TestMaster:
    def test_f5_a_read_only_master_is_logged_once_until_a_write_succeeds(
        self, db: Connection, events: Events, replicated_pair: ReplicatedPair
    ) -> None:
        post(db, 1)
        with set_global(replicated_pair, "read_only", "ON"):
            for number in range(2, 12):
                with pytest.raises(NoServerError, match="is read-only"):
                    post(db, number)
                read(db)
            assert events.lines() == ["master-lost"]
            assert events.counted("master-lost") >= 10
        post(db, 2)
        post(db, 3)
        assert events.lines() == ["master-lost", "master-back"]
        assert events.counted("master-back") == 1

    def test_f5_a_dead_master_is_logged_once_until_a_connection_is_open(
        self, db: Connection, events: Events, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.kill("master")
        for number in range(10):
            with pytest.raises(NoServerError, match="cannot be reached"):
                post(db, number)
        assert events.lines() == ["master-lost"]
        assert events.counted("master-lost") == 10
        replicated_pair.start("master")
        with use_master(), db.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert events.lines() == ["master-lost", "master-back"]

    def test_f5_a_master_that_was_lost_twice_is_logged_twice(
        self, db: Connection, events: Events, replicated_pair: ReplicatedPair
    ) -> None:
        post(db, 0)
        for number in (1, 2):
            with set_global(replicated_pair, "read_only", "ON"), pytest.raises(NoServerError):
                post(db, number)
            post(db, number)
            post(db, number + 10)  # on MySQL, mysqlclient sees no own write in the first answer on a connection
        assert events.lines() == ["master-lost", "master-back"] * 2


class TestFullMaster:
    def test_f5_a_master_with_too_many_connections_is_not_called_unreachable_and_serves_again(
        self, db: Connection, events: Events, replicated_pair: ReplicatedPair
    ) -> None:
        post(db, 0)
        for link in (db.servers.master, db.servers.master_read_only):
            link.source.drop_idle()
        with full(replicated_pair):
            for _ in range(3):
                with pytest.raises(NoServerError, match=r"accepts no further connections.*Too many.*Open fewer"):
                    post(db, 1)
        post(db, 1)  # one success does not end the incident: the connections may run out again in a moment
        assert events.lines() == ["master-lost"]
        db.database.master_loss.latest -= db.database.options.downtime
        post(db, 2)
        assert events.lines() == ["master-lost", "master-back"]


@contextmanager
def full(pair: ReplicatedPair) -> Iterator[None]:
    """Use up the connections of the master."""
    with set_global(pair, "max_connections", 10), ExitStack() as opened:
        with suppress(pymysql.OperationalError):  # "Too many connections"
            while True:
                opened.enter_context(closing(pair.connect("master")))
        yield


class TestRefusedWrites:
    @pytest.mark.parametrize("has_slaves", [True, False])
    def test_s8_the_server_that_refused_a_write_is_not_called_a_slave(
        self, make: Make, replicated_pair: ReplicatedPair, caplog: pytest.LogCaptureFixture, has_slaves: bool
    ) -> None:
        db = make(slaves=replicated_pair.slaves if has_slaves else [])
        with use_slave(), db.cursor() as cursor:
            cursor.execute("INSERT INTO message (id) VALUES (1)")
        name = db.servers.slaves[0].name
        assert f"It was refused on a read-only connection to {name}: (1" in caplog.text


class TestSlaves:
    def test_f5_the_event_takeover_is_logged_once_until_a_slave_serves(
        self, make: Make, replicated_pair: ReplicatedPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        db = make(downtime=0.1)
        events = Events(caplog, db)
        for _ in range(2):
            replicated_pair.kill("slave")
            for _ in range(10):
                read(db)
            replicated_pair.start("slave")
            while db.queries[-1]["server"] != db.servers.slaves[0].name:
                read(db)
            read(db)
        took = [line for line in events.lines() if line.startswith("takeover")]
        assert took == ["takeover", "takeover-end"] * 2
        assert events.counted("takeover") >= 20
        assert events.counted("takeover-end") == 2
