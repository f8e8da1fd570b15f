"""Servers that die (F1 to F3), under sessions."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.orm import Session
from tests.deadlock import deadlock
from tests.ended_links import kill

from replswitch import MASTER, SLAVE, NoServerError
from replswitch.decorators import use_master, use_slave
from replswitch.request.marker import Marker, MarkerSigner
from replswitch.scope import Scope
from replswitch.state import stack
from replswitch.testing import MariaDBPair, Proxy, ReplicatedPair, SQLitePair
from replswitch.wsgi import ReplicationMiddleware

Make = Callable[..., Any]


def scope() -> Scope:
    frame = stack()
    assert frame is not None
    return frame.scope


def read(shop: Any, session: Session) -> int:
    return len(session.scalars(select(shop.Message)).all())


# A file is no server: an open connection still works.
on_servers = pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)


@pytest.fixture
def server_pair(replicated_pair: ReplicatedPair) -> MariaDBPair:
    """A pair of servers."""
    assert isinstance(replicated_pair, MariaDBPair)
    return replicated_pair


def cut(pair: MariaDBPair, name: str) -> None:
    """Let a server close its clients' connections."""
    with pair.admin(name) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE user = %s AND command = 'Sleep'", [pair.user]
        )
        kill(pair, name, *(number for (number,) in cursor.fetchall()))


@pytest.fixture
def dying() -> Callable[..., None]:
    """Make the next statement on a connection, or a later one, find it dead, though it looked alive."""
    meant: list[Any] = []

    def die(engine: Any, *, after: int = 0) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def close(connection: Any, *_: Any) -> None:
            if engine not in meant:
                return
            meant.remove(engine)
            if engine in meant:
                return
            raw = connection.connection.dbapi_connection
            number = raw.thread_id()
            killer = create_engine(engine.url)
            with killer.connect() as other:
                other.exec_driver_sql(f"KILL CONNECTION {number}")
            killer.dispose()

        meant.extend([engine] * (after + 1))

    return die


class TestSlaves:
    def test_f1_reads_of_a_slave_that_is_down_run_on_the_master(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.kill("slave")
        for _ in range(3):
            with use_slave(), shop.Session() as session:
                assert read(shop, session) == 0
                assert scope().forced_master[shop.db] == "no-slave"
                session.commit()
        assert shop.took() == [MASTER] * 3

    def test_f1_a_slave_that_dies_between_two_requests_fails_no_read(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
        if isinstance(replicated_pair, SQLitePair):
            shop.engines[1].dispose()  # an open file still works
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE, MASTER]

    def test_f2_a_slave_serves_again_after_downtime(self, make: Make, replicated_pair: ReplicatedPair) -> None:
        shop = make(downtime=0)
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        replicated_pair.start("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER, SLAVE]

    def test_f2_an_unreachable_slave_is_out_of_rotation(
        self, shop: Any, replicated_pair: ReplicatedPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "replswitch")
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        replicated_pair.start("slave")
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER, MASTER]
        assert "is out of rotation for 10 s" in caplog.text

    def test_f1_another_slave_serves_when_one_is_down(
        self, urls: list[str], make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        urls.append(urls[0])  # the master as a second slave
        shop = make()
        replicated_pair.kill("slave")
        for _ in range(5):
            with use_slave(), shop.Session() as session:
                read(shop, session)
        assert shop.took() == [SLAVE] * 5

    @on_servers
    def test_f1_idle_connections_cut_by_the_server_are_replaced(self, shop: Any, server_pair: MariaDBPair) -> None:
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
    def test_f1_a_first_read_whose_slave_dies_runs_again(
        self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        dying(shop.engines[1])
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
            assert read(shop, session) == 0
            session.commit()
            session.add(shop.Message(body="hello"))
            session.commit()
            assert read(shop, session) == 1
        # A new connection has shown that the slave is there.
        assert shop.took()[:4] == [SLAVE, SLAVE, SLAVE, MASTER]
        assert shop.engines[1].pool.checkedout() == 0

    @on_servers
    def test_f1_a_first_read_in_a_savepoint_whose_slave_dies_runs_again(
        self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        with use_slave(), shop.Session() as session:
            dying(shop.engines[1])
            with session.begin_nested() as nested:
                assert read(shop, session) == 0
                nested.rollback()
            session.rollback()
            assert read(shop, session) == 0

    @on_servers
    def test_f1_a_second_read_whose_slave_dies_raises(
        self, shop: Any, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        with use_slave(), shop.Session() as session:
            read(shop, session)
            dying(shop.engines[1])
            with pytest.raises(OperationalError):
                read(shop, session)
            for lost in (
                lambda: read(shop, session),
                lambda: session.execute(insert(shop.Message).values(body="lost")),
                session.commit,
            ):
                with pytest.raises(PendingRollbackError, match="Call rollback"):
                    lost()
            with use_master(), pytest.raises(PendingRollbackError):
                read(shop, session)
            session.rollback()
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE] * 3  # it is there, and stays in rotation

    @on_servers
    def test_f1_a_read_on_a_connection_of_the_application_whose_slave_dies_raises(
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

    def test_a_commit_on_the_master_succeeds_when_the_slave_is_gone(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        shop = make(on_slave_write="force")
        with use_slave(), shop.Session() as session:
            read(shop, session)
            session.add(shop.Message(body="hello"))
            session.flush()
            replicated_pair.kill("slave")
            session.commit()
            assert read(shop, session) == 1
            session.rollback()

    @on_servers
    @pytest.mark.parametrize("wrong", ["password", "database"])
    def test_f4_a_slave_that_refuses_connections_is_out_of_rotation(
        self, urls: list[str], make: Make, server_pair: MariaDBPair, wrong: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        old = server_pair.password if wrong == "password" else "/shop"
        urls[1] = urls[1].replace(old, "wrong" if wrong == "password" else "/no_such_database")
        shop = make()
        for _ in range(2):
            with use_slave(), shop.Session() as session:
                assert read(shop, session) == 0
        assert shop.took() == [MASTER, MASTER]
        assert caplog.text.count("is out of rotation") == 1

    @on_servers
    def test_f1_a_read_whose_slave_dies_needs_one_place_in_the_pool(
        self, make: Make, server_pair: MariaDBPair, dying: Callable[[Any], None]
    ) -> None:
        shop = make(engine={"pool_size": 1, "max_overflow": 0, "pool_timeout": 2})
        dying(shop.engines[1])
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE, SLAVE]

    @on_servers
    def test_f1_a_statement_that_loses_two_connections_takes_no_server_out_of_rotation(
        self, urls: list[str], make: Make, server_pair: MariaDBPair
    ) -> None:
        """Another server is tried; if that loses it as well, the statement is at fault."""
        with Proxy(server_pair.slaves[0]["port"]) as proxy:
            urls[1] = urls[1].replace(f":{server_pair.slaves[0]['port']}/", f":{proxy.port}/")
            shop = make()
            with use_slave():
                with shop.Session() as session:
                    read(shop, session)
                proxy.cut_after(3000)
                with shop.Session() as session:
                    assert session.scalar(text("SELECT REPEAT('x', 10000)")) == "x" * 10000
                proxy.restore()
            with use_slave(), shop.Session() as session:
                assert read(shop, session) == 0
        assert shop.took() == [SLAVE, SLAVE, SLAVE, MASTER, SLAVE]

    @on_servers
    def test_s6_a_transaction_that_has_read_keeps_a_slave_that_its_scope_avoids(self, shop: Any) -> None:
        slave = shop.db.servers.slaves[0]
        with use_slave(), shop.Session() as session:
            read(shop, session)
            scope().avoid_slave(shop.db, slave)
            read(shop, session)
            session.commit()
            read(shop, session)
        assert shop.took() == [SLAVE, SLAVE, MASTER]
        with use_slave(), shop.Session() as session:
            session.connection()
            scope().avoid_slave(shop.db, slave)
            read(shop, session)
        assert shop.took() == [MASTER]

    @on_servers
    def test_f4_an_undefined_table_on_the_slave_is_read_on_the_master(
        self, shop: Any, server_pair: MariaDBPair
    ) -> None:
        with shop.master.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS migrated")
        server_pair.wait_caught_up()
        server_pair.stop_slave()
        with shop.master.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE migrated (id INT)")
        shop.took()
        with use_slave():
            with shop.Session() as session:
                assert session.scalars(text("SELECT id FROM migrated")).all() == []
                assert scope().decisions[-1].reason == "not-replicated"
                with pytest.raises(DBAPIError, match="no_such_table"):
                    session.execute(text("SELECT * FROM no_such_table"))
            assert shop.took() == [SLAVE, MASTER, MASTER]
        with use_slave(), shop.Session() as session:
            read(shop, session)
            with pytest.raises(DBAPIError, match="migrated"):
                session.scalars(text("SELECT id FROM migrated"))

    @on_servers
    def test_a_slave_over_max_lag_serves_no_reads(self, make: Make, server_pair: MariaDBPair) -> None:
        shop = make(max_lag=1)
        server_pair.stop_slave()
        with use_slave(), shop.Session() as session:
            read(shop, session)
        assert shop.took() == [MASTER]

    def test_with_fallback_error_a_read_without_a_slave_raises(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        shop = make(fallback="error")
        replicated_pair.kill("slave")
        with use_slave(), shop.Session() as session, pytest.raises(NoServerError, match='"fallback" is "error"'):
            read(shop, session)


class TestMaster:
    def test_f3_without_a_master_slaves_serve_reads(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("master")
        with use_slave(), shop.Session() as session:
            assert read(shop, session) == 0
        assert shop.took() == [SLAVE]

    def test_f3_without_a_master_writes_fail_at_once(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.kill("master")
        with use_master(), shop.Session() as session:
            session.add(shop.Message(body="hello"))
            with pytest.raises(NoServerError, match=r"The master .* cannot be reached") as caught:
                session.commit()
        assert caught.value.server == shop.db.master_name
        with pytest.raises(NoServerError), shop.master.connect():
            pass

    def test_f3_without_a_master_a_slave_out_of_rotation_is_tried(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
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

    def test_f3_the_error_of_a_read_without_any_server_names_the_master(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        for name in ("slave", "master"):
            replicated_pair.kill(name)
        with use_slave(), shop.Session() as session, pytest.raises(NoServerError, match="The master"):
            read(shop, session)

    @on_servers
    def test_f3_a_write_to_a_master_turned_read_only_says_that_it_is_read_only(
        self, shop: Any, server_pair: MariaDBPair
    ) -> None:
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
    def test_f3_a_write_refused_by_a_briefly_read_only_master_runs_again(
        self, shop: Any, server_pair: MariaDBPair
    ) -> None:
        with server_pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL read_only = 1")

        @event.listens_for(shop.engines[0], "handle_error")
        def end(_: Any) -> None:
            with server_pair.admin() as admin, admin.cursor() as cursor:
                cursor.execute("SET GLOBAL read_only = 0")

        with use_master(), shop.Session() as session:
            session.execute(insert(shop.Message).values(body="hello"))
            session.commit()
            assert read(shop, session) == 1
        assert shop.took() == [MASTER] * 3

    @on_servers
    def test_a_first_statement_that_was_not_sent_to_the_master_runs_again(
        self, shop: Any, server_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with use_master(), shop.Session() as session:
            read(shop, session)
            session.commit()
            gone = shop.db.driver.module.OperationalError(2006, "MySQL server has gone away")

            @event.listens_for(shop.engines[0], "do_execute", once=True)
            def fail(*_: Any) -> None:
                raise gone

            session.execute(insert(shop.Message).values(body="hello"))
            session.commit()
            assert read(shop, session) == 1
            event.listen(shop.engines[0], "do_execute", lambda *_: (_ for _ in ()).throw(gone), once=True)
            with pytest.raises(OperationalError):
                read(shop, session)  # the transaction is in the midst of its statements
            session.rollback()

    @on_servers
    def test_m1_a_commit_on_a_master_that_dies_is_recorded(self, shop: Any, server_pair: MariaDBPair) -> None:
        with use_master(), shop.Session() as session:
            session.execute(insert(shop.Message).values(body="hello"))
            server_pair.kill("master")
            with pytest.raises(OperationalError):
                session.commit()
            wrote = scope().all_written()
            assert wrote is not None
            assert wrote.written_at is not None

    def test_an_error_of_the_application_on_the_master_is_raised_unchanged(self, shop: Any) -> None:
        with use_master(), shop.Session() as session, pytest.raises(Exception, match="no_such_table") as caught:
            session.execute(text("SELECT * FROM no_such_table"))
        assert not isinstance(caught.value, NoServerError | sqlite3.Error)


def write(shop: Any, body: str = "hello") -> None:
    with use_master(), shop.Session() as session:
        session.execute(insert(shop.Message).values(body=body))
        session.commit()


def wrote_at() -> float | None:
    """The scope has written, and the position is unknown."""
    wrote = scope().all_written()
    return None if wrote is None else wrote.written_at


@contextmanager
def broken_way(urls: list[str], pair: MariaDBPair) -> Iterator[Proxy]:
    """A proxy in the place of the master."""
    with Proxy(pair.master["port"]) as proxy:
        urls[0] = urls[0].replace(f":{pair.master['port']}/", f":{proxy.port}/")
        yield proxy


def ends_at(url: str) -> str:
    return url.partition("@")[2].partition("/")[0]


@on_servers
class TestReadsOnTheMaster:
    """In slave state, because no slave has what must be seen; and then the master fails."""

    @pytest.fixture
    def master(self, urls: list[str], server_pair: MariaDBPair) -> Iterator[Proxy]:
        """The way to the master, which can be broken."""
        with broken_way(urls, server_pair) as proxy:
            yield proxy

    @pytest.fixture
    def behind(self, master: Proxy, make: Make, server_pair: MariaDBPair) -> Iterator[Any]:
        """A database whose slave lacks what the running scope has written."""
        shop = make()
        server_pair.stop_slave()
        with use_slave():
            write(shop)
            with shop.Session() as session:
                assert read(shop, session) == 1
            assert scope().forced_master[shop.db] == "own-write"
            shop.took()
            yield shop

    def test_f3_a_read_on_a_lost_master_runs_again_on_a_read_only_link(
        self, behind: Any, dying: Callable[..., None]
    ) -> None:
        with behind.Session() as session:
            dying(behind.engines[0])
            assert read(behind, session) == 1
            decision = scope().decisions[-1]
            assert (decision.state, decision.reason, decision.server) == (SLAVE, "no-master", behind.db.master_name)
            assert read(behind, session) == 1
            assert wrote_at() is None
            session.add(behind.Message(body="more"))  # the session's transaction continues
            session.commit()
            assert read(behind, session) == 2
        assert behind.took() == [MASTER, MASTER, MASTER]
        assert [engine.pool.checkedout() for engine in behind.engines[:2]] == [0, 0]

    def test_f3_a_read_lost_on_the_master_in_a_savepoint_runs_on_another_server(
        self, behind: Any, dying: Callable[..., None]
    ) -> None:
        with behind.Session() as session:
            dying(behind.engines[0])  # finds it when it sets the savepoint
            with session.begin_nested() as nested:
                assert read(behind, session) == 1
                nested.rollback()
            assert read(behind, session) == 1
            session.commit()

    def test_f3_a_read_moved_to_another_server_keeps_the_pending_objects_of_the_session(
        self, behind: Any, dying: Callable[..., None]
    ) -> None:
        with behind.Session() as session, session.begin():
            session.add(behind.Message(body="pending"))
            with session.no_autoflush:
                dying(behind.engines[0])
                assert read(behind, session) == 1
        with behind.Session() as session:
            assert read(behind, session) == 2

    def test_f3_a_read_lost_on_the_master_runs_on_a_slave_that_has_caught_up(
        self, behind: Any, server_pair: MariaDBPair
    ) -> None:
        server_pair.start_slave()
        server_pair.wait_caught_up()
        server_pair.kill("master")
        for connect in (False, True):
            with behind.Session() as session:
                if connect:
                    session.connection()
                assert read(behind, session) == 1
                assert read(behind, session) == 1
                session.commit()
        ran = behind.took()
        assert ran.count(SLAVE) == 4
        assert ran.count(MASTER) <= 1  # where its death is noticed by the first statement
        assert scope().decisions[-1].reason == "no-master"

    @pytest.mark.parametrize("reached", [False, True], ids=["new connection", "open connection"])
    def test_f3_a_write_without_a_master_raises_and_does_not_reach_a_slave(
        self, behind: Any, master: Proxy, server_pair: MariaDBPair, reached: bool
    ) -> None:
        server_pair.start_slave()
        server_pair.wait_caught_up()
        with behind.Session() as session:
            if reached:
                session.connection()
            server_pair.kill("master")
            while master.connections:
                time.sleep(0.01)
            # Behind the read-only link to a slave that has refused it, there is no master to move it to.
            with pytest.raises(NoServerError, match=r"The master|lost during a write"):
                session.execute(insert(behind.Message).values(body="lost"))
            session.rollback()
        assert (wrote_at() is not None) is reached  # it may have been sent

    def test_f3_the_error_of_a_read_without_a_master_names_the_master(
        self, behind: Any, master: Proxy, server_pair: MariaDBPair
    ) -> None:
        server_pair.kill("master")
        while master.connections:
            time.sleep(0.01)
        for _ in range(2):
            with behind.Session() as session, pytest.raises(NoServerError, match="The master") as caught:
                read(behind, session)
            assert caught.value.server == behind.db.master_name
        assert wrote_at() is None

    def test_f3_the_error_names_a_master_that_dies_during_a_read(
        self, behind: Any, master: Proxy, dying: Callable[..., None]
    ) -> None:
        @event.listens_for(behind.engines[0], "handle_error", insert=True)
        def refuse(_: Any) -> None:
            master.refuse()

        with behind.Session() as session:
            dying(behind.engines[0])
            with pytest.raises(NoServerError, match=r"The master .* cannot be reached"):
                read(behind, session)
            assert wrote_at() is not None  # nobody knows

    def test_p3_with_a_marker_by_time_only_the_server_under_the_master_s_name_is_read(
        self, master: Proxy, make: Make, server_pair: MariaDBPair, dying: Callable[..., None]
    ) -> None:
        shop = make()
        seen: list[Any] = []

        def application(environ: Any, start_response: Any) -> list[bytes]:
            with shop.Session() as session:
                dying(shop.engines[0])
                seen.append(read(shop, session))
            seen.append(scope().decisions[-1].server)
            server_pair.kill("master")
            with shop.Session() as session, pytest.raises(NoServerError):
                read(shop, session)
            start_response("200 OK", [])
            return []

        environ = {"HTTP_COOKIE": f"just_updated={MarkerSigner('secret').write(Marker(time.time()))}"}
        setup_testing_defaults(environ)
        ReplicationMiddleware(application, secret="secret")(environ, lambda *_: lambda _: None)
        assert seen == [0, shop.db.master_name]

    def test_f1_a_read_lost_on_the_master_after_another_read_raises(
        self, behind: Any, dying: Callable[..., None]
    ) -> None:
        with behind.Session() as session:
            read(behind, session)
            dying(behind.engines[0])
            with pytest.raises(OperationalError):
                read(behind, session)
            session.rollback()
            assert read(behind, session) == 1

    @pytest.mark.parametrize("in_the_same_call", [True, False], ids=["flushed by the read", "flushed before the read"])
    def test_f1_a_read_lost_on_the_master_after_a_flush_raises(
        self, behind: Any, dying: Callable[..., None], in_the_same_call: bool
    ) -> None:
        with behind.Session() as session:
            session.add(behind.Message(body="flushed"))
            if not in_the_same_call:
                session.flush()
            dying(behind.engines[0], after=1 if in_the_same_call else 0)
            with pytest.raises(OperationalError):
                read(behind, session)
            session.rollback()
            assert read(behind, session) == 1

    def test_f1_a_read_lost_on_a_connection_of_the_application_raises(
        self, behind: Any, dying: Callable[..., None]
    ) -> None:
        with behind.Session() as session:
            connection = session.connection()
            dying(behind.engines[0])
            with pytest.raises(OperationalError):
                connection.execute(select(behind.Message))
            session.rollback()
            assert read(behind, session) == 1

    def test_a_master_link_lost_after_a_read_does_not_fail_rollback_or_close(
        self, behind: Any, server_pair: MariaDBPair
    ) -> None:
        for end in ("rollback", "close"):
            with behind.Session() as session:
                assert read(behind, session) == 1
                cut(server_pair, "master")
                getattr(session, end)()

    def test_f1_a_read_lost_in_master_state_raises(self, behind: Any, dying: Callable[..., None]) -> None:
        with use_master(), behind.Session() as session:
            dying(behind.engines[0])
            with pytest.raises(OperationalError):
                read(behind, session)

    def test_f1_a_write_whose_response_is_lost_does_not_run_again(
        self, master: Proxy, make: Make, server_pair: MariaDBPair
    ) -> None:
        shop = make(engine={"isolation_level": "AUTOCOMMIT"})
        server_pair.stop_slave()
        with use_slave(), shop.Session() as session:
            write(shop)
            assert read(shop, session) == 1
            session.commit()
            server_pair.start_slave()
            server_pair.wait_caught_up()
            master.cut_after(0)
            with pytest.raises(NoServerError, match=r"lost during a write, at .*not known whether"):
                session.execute(insert(shop.Message).values(body="once"))
            session.rollback()
            assert wrote_at() is not None
            master.restore()
            assert session.scalars(select(shop.Message.body)).all() == ["hello", "once"]

    @pytest.mark.parametrize(
        "how", ["reached", "unreachable"], ids=["the connection to the master breaks", "the master is down"]
    )
    def test_f3_a_read_raises_when_the_master_and_all_slaves_fail(
        self, urls: list[str], master: Proxy, make: Make, server_pair: MariaDBPair, how: str
    ) -> None:
        with Proxy(server_pair.slaves[0]["port"]) as proxy:
            urls[1] = urls[1].replace(f":{server_pair.slaves[0]['port']}/", f":{proxy.port}/")
            shop = make()
            server_pair.kill("slave")
            with use_slave():
                with shop.Session() as session:
                    read(shop, session)
                server_pair.start("slave")
                server_pair.wait_caught_up()
                for each in (proxy, master) if how == "reached" else (proxy,):
                    each.cut_after(3000)
                if how == "unreachable":
                    server_pair.kill("master")
                with shop.Session() as session, pytest.raises((NoServerError, DBAPIError)):
                    session.scalar(text("SELECT REPEAT('x', 10000)"))


@on_servers
class TestPromotion:
    @pytest.fixture
    def name(self, urls: list[str], server_pair: MariaDBPair) -> Iterator[Proxy]:
        """The master's name."""
        with broken_way(urls, server_pair) as proxy:
            yield proxy
        server_pair.reset()

    def test_f3_an_open_connection_to_a_former_master_loses_no_write(
        self, name: Proxy, make: Make, server_pair: MariaDBPair
    ) -> None:
        shop = make()
        with use_master(), ExitStack() as open_:
            sessions = [open_.enter_context(shop.Session()) for _ in range(2)]
            for session in sessions:
                session.execute(insert(shop.Message).values(body="before"))
            for session in sessions:
                session.commit()
        with use_master():
            with ExitStack() as open_:
                for _ in range(2):  # nothing has shown yet that the master is another one
                    open_.enter_context(shop.Session()).connection()
                server_pair.promote("slave")
                name.target = server_pair.master["port"]
                server_pair.stop_slave("master")
                write(shop)
            assert shop.master.pool.checkedin() == 3
            with ExitStack() as open_:
                for _ in range(3):
                    assert read(shop, open_.enter_context(shop.Session())) == 3


@pytest.mark.parametrize("driver", ["mariadb"], indirect=True)
def test_without_a_promotion_no_extra_query_is_sent(shop: Any) -> None:
    def asked() -> int:
        counts = []
        for _ in range(2):
            with shop.Session() as session:
                counts.append(int(session.execute(text("SHOW SESSION STATUS LIKE 'Questions'")).one()[1]))
        return counts[1] - counts[0]

    before = asked()
    with use_master():
        write(shop)
        assert scope().must_see
        assert asked() == before


@on_servers
def test_s5_a_deadlock_ends_the_transaction(shop: Any, server_pair: MariaDBPair) -> None:
    with use_master(), shop.Session() as session:
        session.execute(insert(shop.Message), [{"id": number, "body": "old"} for number in range(1, 5)])
        session.commit()
    with deadlock(server_pair, "UPDATE message SET body = 'x'"), use_master(), shop.Session() as session:
        session.execute(text("UPDATE message SET body = 'new' WHERE id = 1"))
        with pytest.raises(OperationalError, match="1213"):
            session.execute(text("UPDATE message SET body = 'new' WHERE id = 2"))
        for lost in (lambda: session.execute(insert(shop.Message).values(body="lost")), session.commit):
            with pytest.raises(PendingRollbackError, match="Call rollback"):
                lost()
        session.rollback()
        assert {message.body for message in session.scalars(select(shop.Message))} == {"old"}


@on_servers
class TestIncidents:
    def test_f5_a_read_only_master_is_logged_once_until_it_serves_again(
        self, shop: Any, server_pair: MariaDBPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        with server_pair.admin("master") as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL read_only = ON")
            for _ in range(5):
                with pytest.raises((NoServerError, DBAPIError)):
                    write(shop)
            cursor.execute("SET GLOBAL read_only = OFF")
        write(shop)
        write(shop)
        assert events_in(caplog) == ["master-lost", "master-back"]

    def test_f5_a_dead_master_is_logged_once_until_it_serves_again(
        self, shop: Any, server_pair: MariaDBPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        server_pair.kill("master")
        for _ in range(5):
            with pytest.raises(NoServerError):
                write(shop)
        server_pair.start("master")
        write(shop)
        assert events_in(caplog) == ["master-lost", "master-back"]

    def test_f5_the_event_takeover_is_logged_once_until_a_slave_serves(
        self, make: Make, server_pair: MariaDBPair, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = make(downtime=0.1)
        server_pair.kill("slave")
        for _ in range(5):
            with shop.Session() as session, use_slave():
                read(shop, session)
        server_pair.start("slave")
        shop.took()
        while SLAVE not in shop.took():
            with shop.Session() as session, use_slave():
                read(shop, session)
        assert [event for event in events_in(caplog) if "takeover" in event] == ["takeover", "takeover-end"]


def events_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.replswitch["event"] for record in caplog.records if hasattr(record, "replswitch")]
