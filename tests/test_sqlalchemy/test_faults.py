"""Servers that die (F1 to F3), under sessions."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.exc import OperationalError, PendingRollbackError
from sqlalchemy.orm import Session

from replswitch import MASTER, SLAVE, NoServerError
from replswitch.decorators import use_master, use_slave
from replswitch.scope import Scope
from replswitch.state import stack
from replswitch.testing import MariaDBPair, ReplicatedPair, SQLitePair

Make = Callable[..., Any]


def scope() -> Scope:
    frame = stack()
    assert frame is not None
    return frame.scope


def read(shop: Any, session: Session) -> int:
    return len(session.scalars(select(shop.Message)).all())


# A file is no server: a connection to one goes on to work.
on_servers = pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)


@pytest.fixture
def server_pair(replicated_pair: ReplicatedPair) -> MariaDBPair:
    """A pair of servers."""
    assert isinstance(replicated_pair, MariaDBPair)
    return replicated_pair


def cut(pair: MariaDBPair, name: str) -> None:
    """Let a server close its clients' connections when they send the next statement."""
    with pair.admin(name) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE user = %s AND command = 'Sleep'", [pair.user]
        )
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL CONNECTION {number}")


@pytest.fixture
def dying() -> Callable[[Any], None]:
    """Make the next statement on a connection of a slave find it dead, though it looked alive before."""
    meant: list[Any] = []

    def die(engine: Any) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def close(connection: Any, *_: Any) -> None:
            if engine not in meant:
                return
            meant.remove(engine)
            raw = connection.connection.dbapi_connection
            number = raw.thread_id()
            killer = create_engine(engine.url)
            with killer.connect() as other:
                other.exec_driver_sql(f"KILL CONNECTION {number}")
            killer.dispose()

        meant.append(engine)

    return die


class TestSlaves:
    def test_one_that_is_down_costs_nothing(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("slave")
        for _ in range(3):
            with use_slave(), shop.Session() as session:
                assert read(shop, session) == 0
                assert scope().pinned(shop.db) == "no-slave"
                session.commit()
        assert shop.took() == [MASTER] * 3

    def test_one_that_dies_between_two_requests(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
        if isinstance(replicated_pair, SQLitePair):
            shop.engines[1].dispose()  # an open file goes on to work
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE, MASTER]

    def test_it_is_back_after_its_rest(self, make: Make, replicated_pair: ReplicatedPair) -> None:
        shop = make(downtime=0)
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        replicated_pair.start("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER, SLAVE]

    def test_it_rests(self, shop: Any, replicated_pair: ReplicatedPair, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, "replswitch")
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        replicated_pair.start("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER, MASTER]
        assert "rests for 10 s" in caplog.text

    def test_another_one_serves(self, urls: list[str], make: Make, replicated_pair: ReplicatedPair) -> None:
        urls.append(urls[0])  # the master as a second slave
        shop = make()
        replicated_pair.kill("slave")
        for _ in range(5):
            with use_slave(), shop.Session() as session:
                read(shop, session)
        assert shop.took() == [SLAVE] * 5

    @on_servers
    def test_idle_connections_that_were_cut_are_replaced(self, shop: Any, server_pair: MariaDBPair) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
        with use_master(), shop.Session() as session:
            read(shop, session)
        for name in ("slave", "master"):
            cut(server_pair, name)
        with use_slave(), shop.Session() as session:
            read(shop, session)
        with use_master(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [SLAVE, MASTER, SLAVE, MASTER]

    @on_servers
    def test_a_first_read_runs_again(self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]) -> None:
        dying(shop.engines[1])
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
            assert read(shop, session) == 0
            session.add(shop.Message(body="hello"))
            session.commit()
            assert read(shop, session) == 1
        assert shop.took() == [SLAVE, MASTER, MASTER, MASTER, MASTER]
        assert shop.engines[1].pool.checkedout() == 0

    @on_servers
    def test_in_a_savepoint_too(self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]) -> None:
        with use_slave(), shop.Session() as session:
            dying(shop.engines[1])
            with session.begin_nested() as nested:
                assert read(shop, session) == 0
                nested.rollback()
            session.rollback()
            assert read(shop, session) == 0

    @on_servers
    def test_after_a_read_it_is_the_applications_error(
        self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
            dying(shop.engines[1])
            with pytest.raises(OperationalError):
                read(shop, session)
            session.rollback()
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE, SLAVE, MASTER]
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [MASTER]  # the slave rests

    @on_servers
    def test_on_a_connection_in_the_applications_hands_too(
        self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        with use_slave(), shop.Session() as session:
            connection = session.connection()
            dying(shop.engines[1])
            with pytest.raises(OperationalError):
                connection.execute(select(shop.Message))
            with pytest.raises(PendingRollbackError):
                connection.execute(select(shop.Message))
            session.rollback()
            assert read(shop, session) == 0

    def test_a_commit_on_the_master_does_not_fail_with_it(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
            session.add(shop.Message(body="hello"))
            session.flush()
            replicated_pair.kill("slave")
            session.commit()
            assert read(shop, session) == 1
            session.rollback()

    @on_servers
    def test_a_wrong_password_is_the_applications_error(
        self, urls: list[str], make: Make, server_pair: MariaDBPair
    ) -> None:
        urls[1] = urls[1].replace(server_pair.password, "wrong")
        shop = make()
        with use_slave(), shop.Session() as session, pytest.raises(OperationalError, match="Access denied"):
            read(shop, session)

    @on_servers
    def test_one_too_far_behind_gets_no_reads(self, make: Make, server_pair: MariaDBPair) -> None:
        shop = make(max_lag=1)
        server_pair.stop_slave()
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER]

    def test_fallback_error(self, make: Make, replicated_pair: ReplicatedPair) -> None:
        shop = make(fallback="error")
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session, pytest.raises(NoServerError, match='"fallback" is "error"'):
            read(shop, session)


class TestMaster:
    def test_without_it_slaves_serve(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("master")
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE]

    def test_writes_fail_at_once(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("master")
        with use_master(), shop.Session() as session:
            session.add(shop.Message(body="hello"))
            with pytest.raises(NoServerError, match=r"The master .* cannot be reached") as caught:
                session.commit()
        assert caught.value.server == shop.db.master_name
        with pytest.raises(NoServerError), shop.master.connect():
            pass

    def test_a_slave_that_rests_is_the_last_resort(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        replicated_pair.start("slave")
        shop.engines[0].dispose()
        replicated_pair.kill("master")
        for connect in (False, True):
            with use_slave(), shop.Session() as session:
                if connect:
                    session.connection()
                assert read(shop, session) == 0
        assert shop.took() == [MASTER, SLAVE, SLAVE]

    def test_without_either_it_fails(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        for name in ("slave", "master"):
            replicated_pair.kill(name)
        with use_slave(), shop.Session() as session, pytest.raises(NoServerError, match="The master"):
            read(shop, session)

    @on_servers
    def test_one_that_has_become_read_only(self, shop: Any, server_pair: MariaDBPair) -> None:
        with server_pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL read_only = 1")
        try:
            with use_master(), shop.Session() as session:
                session.add(shop.Message(body="hello"))
                with pytest.raises(NoServerError, match="is read-only"):
                    session.commit()
                session.rollback()
                assert scope().all_written() is None
        finally:
            with server_pair.admin() as admin, admin.cursor() as cursor:
                cursor.execute("SET GLOBAL read_only = 0")
        with use_master(), shop.Session() as session:
            session.add(shop.Message(body="hello"))
            session.commit()

    @on_servers
    def test_one_that_dies_may_have_written(self, shop: Any, server_pair: MariaDBPair) -> None:
        with use_master(), shop.Session() as session:
            session.execute(insert(shop.Message).values(body="hello"))
            server_pair.kill("master")
            with pytest.raises(OperationalError):
                session.commit()
            wrote = scope().all_written()
            assert wrote is not None
            assert wrote.written_at is not None

    def test_an_applications_error_stays_what_it_is(self, shop: Any) -> None:
        with use_master(), shop.Session() as session, pytest.raises(Exception, match="no_such_table") as caught:
            session.execute(text("SELECT * FROM no_such_table"))
        assert not isinstance(caught.value, NoServerError | sqlite3.Error)
