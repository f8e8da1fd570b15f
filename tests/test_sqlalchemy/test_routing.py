"""Sessions on real pairs: which server runs what, and what a session and its scope see."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import replswitch
from replswitch import MASTER, SLAVE, RevertError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.scope import Scope
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.state import beginning, push, stack
from replswitch.testing import PostgreSQLPair, ReplicatedPair

Make = Callable[..., Any]


def count(shop: Any, session: Session) -> int:
    return session.scalar(select(func.count()).select_from(shop.Message)) or 0


def add(shop: Any, session: Session, body: str = "hello") -> Any:
    message = shop.Message(body=body)
    session.add(message)
    session.commit()
    return message


def scope() -> Scope:
    frame = stack()
    assert frame is not None
    return frame.scope


class TestStates:
    def test_s1_without_a_switch_reads_are_on_the_master(self, shop: Any) -> None:
        with shop.Session() as session:
            assert count(shop, session) == 0
        assert shop.took() == [MASTER]

    def test_in_slave_state_reads_are_on_the_slave(self, shop: Any) -> None:
        with shop.db.use_slave(), shop.Session() as session:
            assert count(shop, session) == 0
        assert shop.took() == [SLAVE]

    def test_each_statement_runs_in_the_current_state(self, shop: Any) -> None:
        with shop.Session() as session:
            with use_slave():
                count(shop, session)
            count(shop, session)
            with shop.db.use_slave():
                count(shop, session)  # the transaction has touched the master
            session.rollback()
            with shop.db.use_slave():
                count(shop, session)
        assert shop.took() == [SLAVE, MASTER, MASTER, SLAVE]

    def test_replicate_returns_a_switch(self, shop: Any) -> None:
        assert isinstance(shop.db, Switch)
        shop.db.use_slave()
        assert shop.db.state == SLAVE
        shop.db.revert()
        assert shop.db.state == MASTER
        with pytest.raises(RevertError):
            shop.db.revert()
        shop.db.state_change_disabled = True
        try:
            with shop.db.use_slave(), shop.Session() as session:
                count(shop, session)
        finally:
            shop.db.state_change_disabled = False
        assert shop.took() == [MASTER]

    def test_the_engines_are_attributes_of_the_switch(self, shop: Any) -> None:
        assert shop.db.master is shop.master
        (slave,) = shop.db.slaves
        with shop.Session() as session:
            assert session.get_bind() is shop.master
            with shop.db.use_slave():
                assert session.get_bind() is slave

    def test_printing_a_statement_does_not_choose_a_server(self, shop: Any) -> None:
        with shop.db.use_slave(), shop.Session() as session:
            assert "message" in str(session.query(shop.Message))
        with shop.db.use_slave(), shop.Session() as session:
            bind = session.get_bind()
            with bind.connect() as connection:
                connection.execute(text("SELECT 1"))
            assert count(shop, session) == 0
        assert shop.took() == [SLAVE, SLAVE]

    def test_the_decision_of_a_read_is_in_its_scope(self, shop: Any) -> None:
        with shop.db.use_slave(), shop.Session() as session:
            count(shop, session)
            count(shop, session)
            (decision,) = scope().decisions
        assert (decision.state, decision.reason) == (SLAVE, "use_slave")
        assert decision.server == shop.db.servers.slaves[0].name


class TestTransactions:
    """S5."""

    def test_s5_the_master_serves_the_rest_of_a_transaction(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        with use_master(), shop.Session() as session:
            session.add(shop.Message(body="hello"))
            session.flush()
            with shop.db.use_slave():
                assert count(shop, session) == 1
            session.rollback()
            with shop.db.use_slave():
                assert count(shop, session) == 0
        assert shop.took() == [MASTER, MASTER, SLAVE]

    def test_commit_does_not_change_the_state(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        """advanced-alchemy 1.12 drops a forced state at commit."""
        replicated_pair.stop_slave()
        with use_slave(), shop.db.use_master(), shop.Session() as session:
            add(shop, session)
            assert shop.db.state == MASTER
            assert count(shop, session) == 1
            session.rollback()
            assert shop.db.state == MASTER
            assert count(shop, session) == 1
        assert set(shop.took()) == {MASTER}

    def test_a_slave_snapshot_without_an_own_write_is_left_for_the_master(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        with use_slave(), shop.Session() as reading, shop.Session() as writing:
            assert count(shop, reading) == 0
            with use_master():
                add(shop, writing)
            replicated_pair.wait_caught_up()
            assert count(shop, reading) == 1
        assert shop.took() == [SLAVE, MASTER, MASTER]

    def test_savepoints_work_on_the_slave(self, shop: Any) -> None:
        with shop.db.use_slave(), shop.Session() as session:
            with session.begin_nested():
                assert count(shop, session) == 0
            with session.begin_nested() as inner:
                assert count(shop, session) == 0
                inner.rollback()
            session.commit()
            assert count(shop, session) == 0
        assert set(shop.took()) == {SLAVE}

    def test_s8_with_force_savepoints_that_write_after_reads_work(self, make: Make) -> None:
        shop = make(on_slave_write="force")
        with use_slave(), shop.Session() as session:
            with session.begin_nested():
                assert count(shop, session) == 0
                session.add(shop.Message(body="kept"))
            with session.begin_nested() as inner:
                session.add(shop.Message(body="dropped"))
                session.flush()
                inner.rollback()
            session.commit()
            assert session.scalars(select(shop.Message.body)).all() == ["kept"]

    def test_a_begin_block_runs_in_the_current_state(self, shop: Any) -> None:
        with shop.db.use_slave(), shop.Session.begin() as session:
            count(shop, session)
        with use_master(), shop.Session.begin() as session:
            session.add(shop.Message(body="hello"))
        with shop.Session() as session:
            assert count(shop, session) == 1

    def test_s5_each_session_has_its_own_transaction(self, shop: Any) -> None:
        with use_master(), shop.Session() as first, shop.Session() as second:
            count(shop, first)
            with use_slave():
                count(shop, first)
                count(shop, second)
        assert shop.took() == [MASTER, MASTER, SLAVE]

    def test_m1_a_write_in_autocommit_mode_is_recorded_at_once(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        with use_master():
            with shop.Session() as session:
                session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
                session.execute(insert(shop.Message).values(body="hello"))
                session.rollback()  # too late
                session.commit()
            replicated_pair.wait_caught_up()
            autocommit = shop.master.execution_options(isolation_level="AUTOCOMMIT")
            with shop.db.use_slave(), shop.Session(bind=autocommit) as session:
                assert count(shop, session) == 1
            wrote = scope().all_written()
            assert wrote is not None
            assert wrote.positions
        with shop.Session() as session:  # and the next one has transactions again
            session.execute(insert(shop.Message).values(body="hello"))
            session.rollback()
            assert count(shop, session) == 1

    @pytest.mark.parametrize("by", ["engine", "execution options"])
    @pytest.mark.parametrize("through", ["connection", "session"])
    def test_m1_a_write_in_autocommit_mode_counts_while_the_connection_is_open(
        self, make: Make, replicated_pair: ReplicatedPair, by: str, through: str
    ) -> None:
        shop = make(engine={"isolation_level": "AUTOCOMMIT"} if by == "engine" else None)
        master = shop.master if by == "engine" else shop.master.execution_options(isolation_level="AUTOCOMMIT")
        replicated_pair.stop_slave()
        with use_master(), shop.Session(bind=master) as writes, ExitStack() as open_until_the_end:
            write = writes.execute
            if through == "connection":
                write = open_until_the_end.enter_context(master.connect()).execute
            for number in range(1, 4):
                write(insert(shop.Message).values(body="hello"))
                with shop.db.use_slave(), shop.Session(bind=shop.master) as session:
                    assert count(shop, session) == number
                    assert shop.took()[-1] == MASTER
            wrote = scope().all_written()
            assert wrote is not None
            assert wrote.positions

    def test_m1_writes_in_autocommit_mode_count_in_each_of_two_scopes(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        shop = make(engine={"isolation_level": "AUTOCOMMIT"})
        replicated_pair.stop_slave()
        with shop.master.connect() as connection, ExitStack() as scopes:
            for number in (1, 2):
                scopes.enter_context(push(beginning(Scope())))
                connection.execute(insert(shop.Message).values(body="hello"))
                with shop.db.use_slave(), shop.Session() as session:
                    assert count(shop, session) == number

    @pytest.mark.parametrize("driver", ["mariadb", "mysqlclient", "sqlite"], indirect=True)  # others: transactions only
    def test_m1_writes_in_autocommit_mode_count_while_a_result_is_being_read(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        shop = make(engine={"isolation_level": "AUTOCOMMIT"})
        replicated_pair.stop_slave()
        with use_master(), shop.master.connect() as connection:
            for body in "abc":
                connection.execute(insert(shop.Message).values(body=body))
            rows = connection.execute(
                select(shop.Message.body).order_by(shop.Message.id), execution_options={"stream_results": True}
            ).scalars()
            read = [next(rows)]
            with shop.db.use_slave(), shop.Session() as session:
                assert count(shop, session) == 3
            assert [*read, *rows] == ["a", "b", "c"]

    @pytest.mark.parametrize("sessions", [1, 2])
    def test_s6_rows_that_are_read_one_by_one_all_come_if_the_loop_writes_and_reads(
        self, shop: Any, replicated_pair: ReplicatedPair, sessions: int
    ) -> None:
        with shop.Session() as session:
            session.execute(insert(shop.Message), [{"body": "x" * 100} for _ in range(5)])
            session.commit()
        replicated_pair.wait_caught_up()
        came = 0
        with use_slave(), shop.Session() as session:
            stream = session.scalars(select(shop.Message), execution_options={"stream_results": True, "yield_per": 1})
            with nullcontext(session) if sessions == 1 else shop.Session() as other:
                for _ in stream:
                    came += 1
                    with use_master():
                        other.execute(insert(shop.Message).values(body="more"))
                        if sessions == 2:
                            other.commit()
                    with use_slave():
                        assert count(shop, other) == 5 + came
        assert came == 5

    def test_an_error_in_autocommit_mode_ends_no_transaction(self, make: Make) -> None:
        shop = make(engine={"isolation_level": "AUTOCOMMIT"})
        for state in (use_master, use_slave):
            with state(), shop.Session() as session:
                assert count(shop, session) == 0
                with pytest.raises(DBAPIError):
                    session.execute(text("SELECT * FROM no_such_table"))
                assert count(shop, session) == 0

    def test_twophase_is_refused(self, shop: Any) -> None:
        with pytest.raises(Exception, match="twophase=True"):
            shop.Session(twophase=True)


class TestOwnWrites:
    def test_a_slave_without_the_own_write_does_not_serve(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        """advanced-alchemy 1.12 reads a row that was just committed from the slave."""
        replicated_pair.stop_slave()
        with use_master(), shop.Session() as session:
            message = add(shop, session)
            with shop.db.use_slave():
                session.refresh(message)
                assert message.body == "hello"
                assert session.get(shop.Message, message.id) is message
        assert set(shop.took()) == {MASTER}

    def test_a_slave_with_the_own_write_serves(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        with use_master(), shop.Session() as session:
            message = add(shop, session)
            replicated_pair.wait_caught_up()
            shop.took()
            with shop.db.use_slave():
                session.refresh(message)
                assert count(shop, session) == 1
        assert shop.took() == [SLAVE, SLAVE]

    def test_with_wait_a_slave_that_lags_is_waited_for(self, make: Make, replicated_pair: ReplicatedPair) -> None:
        shop = make(wait=10)
        replicated_pair.lag = 1
        with use_master(), shop.Session() as session:
            add(shop, session)
            shop.took()
            with shop.db.use_slave():
                assert count(shop, session) == 1
        assert shop.took() == [SLAVE]

    def test_m1_a_commit_of_a_core_connection_counts(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        with use_master():
            with shop.db.use_slave(), shop.Session() as session:
                assert count(shop, session) == 0
            with shop.master.begin() as connection:
                connection.execute(insert(shop.Message).values(body="hello"))
            with shop.db.use_slave(), shop.Session() as session:
                assert count(shop, session) == 1

    def test_m1_a_commit_of_a_core_connection_that_stays_open_counts(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        for number in (1, 2):
            with use_master(), shop.master.connect() as connection:
                connection.execute(insert(shop.Message).values(body="hello"))
                connection.commit()
                if number == 2:
                    connection.execute(select(shop.Message))  # in the next transaction already
                with shop.db.use_slave(), shop.Session() as session:
                    assert count(shop, session) == number

    def test_m1_commits_of_two_scopes_on_one_connection_count_for_each(self, shop: Any) -> None:
        with shop.master.connect() as connection:
            for _ in range(2):
                with use_master():
                    connection.execute(insert(shop.Message).values(body="hello"))
                    connection.commit()
                    assert scope().all_written() is not None
            with use_master():
                assert scope().all_written() is None

    def test_m1_a_rollback_is_not_recorded(self, shop: Any) -> None:
        with use_master():
            with shop.Session() as session:
                session.add(shop.Message(body="hello"))
                session.flush()
            with shop.Session() as session:
                session.add(shop.Message(body="hello"))
                session.flush()
                session.rollback()
            with shop.master.connect() as connection:
                connection.execute(insert(shop.Message).values(body="hello"))
            assert scope().all_written() is None

    def test_m1_a_read_on_the_master_is_not_recorded(self, shop: Any) -> None:
        with use_master():
            with shop.Session() as session:
                count(shop, session)
                session.commit()
            assert scope().all_written() is None

    def test_p1_the_position_of_a_commit_is_known_without_a_query(
        self, shop: Any, driver: str, replicated_pair: ReplicatedPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With mysqlclient, which does not show the answers, by one."""
        with shop.Session() as session:
            add(shop, session)
        with use_master(), shop.Session() as session, ExitStack() as recording:
            raw: Any = session.connection().connection.dbapi_connection
            asked: list[Any] = []
            if isinstance(replicated_pair, PostgreSQLPair):
                asked = recording.enter_context(replicated_pair.statements("master"))
            elif driver == "pysqlite":
                raw.set_trace_callback(asked.append)
            else:
                query = type(raw).query

                def ask(self: Any, sql: Any, *rest: Any) -> Any:
                    asked.append(sql)
                    return query(self, sql, *rest)

                monkeypatch.setattr(type(raw), "query", ask)
            add(shop, session)
            wrote = scope().all_written()
            assert wrote is not None
            assert list(wrote.positions) == [shop.db.database.set_name]
        questions = [str(sql) for sql in asked if "last_gtid" in str(sql) or "wal_insert_lsn" in str(sql)]
        # With psycopg, the question is a statement of its own, sent along with the COMMIT: test_postgresql.py
        # counts the round trips.
        assert sum("COMMIT" not in sql for sql in questions) == (driver in {"mysqldb", "psycopg"})
        assert sum("INSERT" in str(sql) for sql in asked) == 1

    def test_p1_opening_a_connection_sends_no_position_query(self, shop: Any, driver: str) -> None:
        with shop.Session() as session:
            count(shop, session)  # SQLAlchemy has looked at the server
        shop.master.dispose()
        with use_master():
            connection = shop.master.connect()
            raw: Any = connection.connection.dbapi_connection
            connection.close()
            assert (
                not getattr(raw, "reports_positions", None) or driver != "mysqldb"
            )  # it would know by now, had it asked
            assert scope().all_written() is None

    def test_a_write_outside_a_scope_is_not_recorded(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        with shop.Session() as session:
            add(shop, session)
        with use_slave(), shop.Session() as session:
            assert count(shop, session) == 0

    def test_a_thread_in_the_same_scope_sees_an_own_write(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        counts: list[int] = []

        def read() -> None:
            with shop.db.use_slave(), shop.Session() as session:
                counts.append(count(shop, session))

        with use_master(), shop.Session() as session:
            scope()
            add(shop, session)
            thread = threading.Thread(target=contextvars.copy_context().run, args=(read,))
            thread.start()
            thread.join()
        assert counts == [1]

    def test_m1_a_commit_counts_while_its_connection_is_still_open(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        committed, has_read = threading.Event(), threading.Event()

        def write() -> None:
            with shop.master.connect() as connection:
                connection.execute(insert(shop.Message).values(body="core"))
                connection.commit()
                committed.set()
                has_read.wait()

        with use_master():
            scope()
            thread = threading.Thread(target=contextvars.copy_context().run, args=(write,))
            thread.start()
            committed.wait()
            with shop.db.use_slave(), shop.Session() as session:
                seen = count(shop, session)
            marked = scope().all_written()
            has_read.set()
            thread.join()
        assert seen == 1
        assert marked is not None

    @pytest.mark.parametrize("recorded", [False, True])
    def test_m1_unrecorded_applies_to_a_write_only_if_the_thread_that_commits_is_in_its_block(
        self, shop: Any, replicated_pair: ReplicatedPair, recorded: bool
    ) -> None:
        """The connection of the commit is still held when this thread reads, and when its response is marked."""
        replicated_pair.stop_slave()
        committed, has_read = threading.Event(), threading.Event()

        elsewhere, here = (nullcontext, replswitch.unrecorded) if recorded else (replswitch.unrecorded, nullcontext)

        def write() -> None:
            with shop.master.connect() as connection:
                with elsewhere():
                    connection.execute(insert(shop.Message).values(body="core"))
                    connection.commit()
                with here():
                    committed.set()
                    has_read.wait()
                    connection.close()

        with use_master():
            scope()
            thread = threading.Thread(target=contextvars.copy_context().run, args=(write,))
            thread.start()
            committed.wait()
            with here():
                with shop.db.use_slave(), shop.Session() as session:
                    seen = count(shop, session)
                marked = scope().all_written()
                has_read.set()
                thread.join()
            marked_at_last = scope().all_written()
        assert seen == recorded
        assert (marked is not None) == (marked_at_last is not None) == recorded

    def test_m1_a_commit_in_a_job_counts_for_the_request_around_it(self, shop: Any) -> None:
        outer = Scope()
        with push(beginning(outer)):
            with use_master(), shop.Session() as session:
                add(shop, session)
            assert outer.all_written() is not None

    def test_s5_the_master_serves_a_transaction_after_its_master_link_has_joined(
        self, shop: Any, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        with use_master(), shop.Session() as session:
            scope()
            add(shop, session)
            with shop.db.use_slave(), shop.Session() as other:
                assert other.get_bind(clause=select(shop.Message)).url == shop.master.url
                assert not scope().forced_master
                count(shop, other)
                assert scope().forced_master == {shop.db: "own-write"}


class TestBinds:
    def test_an_engine_without_replicate_is_used_unchanged(self, shop: Any) -> None:
        other = create_engine("sqlite://")
        with use_slave(), RoutingSession(other) as session:
            assert session.get_bind() is other
            assert session.scalar(text("SELECT 1")) == 1
        other.dispose()
        assert shop.took() == []

    def test_binds_route_the_replicated_database_only(self, shop: Any) -> None:
        other = create_engine("sqlite://")
        make_session = sessionmaker(binds={shop.Message: shop.master}, bind=other, class_=RoutingSession)
        with use_slave(), make_session() as session:
            count(shop, session)
            assert session.scalar(text("SELECT 1")) == 1
            assert session.get_bind(shop.Message) is shop.db.slaves[0]
            assert session.get_bind() is other
        other.dispose()
        assert shop.took() == [SLAVE]

    def test_two_replicated_databases_are_routed_separately(self, make: Make) -> None:
        first, second = make(), make(name="second")
        with use_slave(), first.Session() as one, second.Session() as two, second.db.use_master():
            count(first, one)
            count(second, two)
        assert (first.took(), second.took()) == ([SLAVE], [MASTER])

    def test_an_engine_named_for_a_statement_is_used(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            session.execute(select(shop.Message), bind_arguments={"bind": shop.master})
            count(shop, session)  # the transaction has touched the master
            session.rollback()
        with shop.Session() as session:
            session.execute(select(shop.Message), bind_arguments={"bind": shop.db.slaves[0]})
        assert shop.took() == [MASTER, MASTER, SLAVE]

    def test_a_session_bound_to_the_master_engine_with_execution_options_is_routed(self, shop: Any) -> None:
        derived = shop.master.execution_options(colour="red")
        with use_slave(), shop.Session(bind=derived) as session:
            assert session.connection().get_execution_options()["colour"] == "red"
            count(shop, session)
            session.rollback()
            with use_master():
                add(shop, session)
            assert session.connection().engine is derived or session.connection().engine is not shop.master
        assert shop.took()[0] == SLAVE

    def test_a_session_bound_to_a_connection_stays_on_it(self, shop: Any) -> None:
        with shop.master.connect() as connection, connection.begin() as transaction:
            with use_slave(), shop.Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                add(shop, session)
                assert count(shop, session) == 1
            transaction.rollback()
        assert set(shop.took()) == {MASTER}
        with shop.Session() as session:
            assert count(shop, session) == 0

    def test_execution_options_reach_the_connection_of_the_slave(self, shop: Any, strict: str) -> None:
        with use_slave(), shop.Session() as session:
            connection = session.connection(execution_options={"isolation_level": strict})
            assert connection.get_execution_options()["isolation_level"] == strict
            assert connection.get_isolation_level() == strict
            count(shop, session)
        assert set(shop.took()) == {SLAVE}

    def test_a_scoped_session_is_routed(self, shop: Any) -> None:
        session = scoped_session(shop.Session)
        with use_slave():
            assert session.scalars(select(shop.Message)).all() == []
        session.remove()
        session.add(shop.Message(body="hello"))
        session.commit()
        session.remove()
        assert shop.took()[:2] == [SLAVE, MASTER]

    def test_the_db_argument_of_flask_sqlalchemy_is_accepted(self, shop: Any) -> None:
        make_session = sessionmaker(shop.master, class_=RoutingSession, db=object())
        with make_session() as session:
            count(shop, session)

    def test_another_session_class_in_the_mro_gets_its_arguments(self, shop: Any) -> None:
        class Behind(Session):
            def __init__(self, db: Any, **options: Any) -> None:
                super().__init__(**options)
                self.engines = db

            def get_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None, **options: Any) -> Any:
                return self.engines[0]

        class Both(RoutingSession, Behind):  # type: ignore[misc]  # as Flask-SQLAlchemy's, it takes more
            pass

        with use_slave(), sessionmaker(class_=Both, db=[shop.master])() as session:
            assert count(shop, session) == 0
        assert shop.took() == [SLAVE]


class TestPools:
    @pytest.mark.parametrize("options", [{"pool_pre_ping": True}, {"pool_size": 1, "max_overflow": 0}])
    def test_the_pool_settings_of_the_engine_stay_in_force(self, make: Make, options: dict[str, Any]) -> None:
        shop = make(engine=options)
        for _ in range(3):
            with use_slave(), shop.Session() as session:
                session.get_bind()
                count(shop, session)
                session.commit()
                add(shop, session)
                count(shop, session)
        assert shop.took()[0] == SLAVE
        for engine in shop.engines:
            assert engine.pool.checkedout() == 0

    def test_connections_return_to_the_pool_when_their_transaction_ends(self, shop: Any) -> None:
        pool = shop.db.slaves[0].pool
        with use_slave():
            session = shop.Session()
            count(shop, session)
            assert pool.checkedout() == 1
            session.commit()
            assert pool.checkedout() == 0

    def test_f1_get_bind_takes_no_connection_from_the_pool(self, make: Make) -> None:
        shop = make(engine={"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.1})
        (slave,) = shop.db.slaves
        busy = [shop.Session(), shop.Session()]
        with use_slave():
            for session in busy:
                count(shop, session)
            idle = [shop.Session() for _ in range(3)]
            assert [session.get_bind() for session in idle] == [slave] * 3
            assert slave.pool.checkedout() == 2
            for session in busy:
                session.close()
            assert slave.pool.checkedout() == 0
            for session in idle:
                assert session.get_bind() is slave
                count(shop, session)
                assert slave.pool.checkedout() == 1
                session.close()
        assert shop.took() == [SLAVE] * 5

    def test_f1_get_bind_after_a_write_keeps_no_connection(self, make: Make) -> None:
        shop = make(engine={"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1})
        with use_slave(), shop.Session() as session:
            with use_master():
                add(shop, session)  # a slave is asked whether it has this
            shop.took()
            assert session.get_bind() in {shop.master, *shop.db.slaves}
            assert shop.db.slaves[0].pool.checkedout() == 0
            assert count(shop, session) == 1

    def test_f1_a_read_after_get_bind_runs_on_the_master_if_the_slave_is_gone(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        shop = make()
        with use_slave(), shop.Session() as session:
            assert session.get_bind() is shop.db.slaves[0]
            replicated_pair.kill("slave")
            assert count(shop, session) == 0
        assert shop.took() == [MASTER]

    def test_connections_opened_before_replicate_are_closed(self, urls: list[str]) -> None:
        master, slave = create_engine(urls[0]), create_engine(urls[1])
        for engine in (master, slave):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        replicate(master, [slave])
        with use_slave(), RoutingSession(master) as session:
            assert session.scalar(text("SELECT 1")) == 1
        for engine in (master, slave):
            engine.dispose()

    def test_an_engine_works_after_dispose(self, shop: Any) -> None:
        for engine in shop.engines:
            engine.dispose()
        with use_slave(), shop.Session() as session:
            count(shop, session)
            session.commit()
            add(shop, session)
            assert scope().all_written() is not None

    def test_the_isolation_level_of_the_engine_stays_in_force(self, make: Make, strict: str) -> None:
        shop = make(engine={"isolation_level": strict})
        with use_slave(), shop.Session() as session:
            assert session.connection().get_isolation_level() == strict


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)
def test_m1_with_autocommit_false_in_connect_args_a_write_is_recorded(make: Make) -> None:
    shop = make(engine={"connect_args": {"autocommit": False}})
    with use_master(), shop.Session() as session:
        add(shop, session)
        assert scope().all_written() is not None


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)
def test_m1_with_isolation_level_autocommit_of_the_engine_a_write_is_recorded(make: Make) -> None:
    shop = make(engine={"isolation_level": "AUTOCOMMIT"})
    with use_master(), shop.Session() as session:
        session.execute(insert(shop.Message).values(body="hello"))
        assert scope().all_written() is not None


class TestOneSlave:
    """S6."""

    def test_s6_one_slave_serves_a_scope(self, make: Make, urls: list[str]) -> None:
        engines = [create_engine(url) for url in (urls[0], urls[1], urls[1], urls[1])]
        db = replicate(engines[0], engines[1:], weights=[1, 1, 2])
        served: list[set[Engine]] = []
        for _ in range(30):
            with use_slave():
                used = set()
                for _ in range(3):
                    with RoutingSession(engines[0]) as session:
                        session.scalar(text("SELECT 1"))
                        used.add(session.get_bind())
                served.append(used)
        assert {len(used) for used in served} == {1}
        assert set.union(*served) == set(db.slaves)
        for engine in engines:
            engine.dispose()
