"""Arguments that replicate() and RoutingSession refuse, with the cure; and databases without slaves."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, String, create_engine, event, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from replswitch import MASTER, SLAVE, ConfigurationError, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.positions import clock
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.state import stack
from replswitch.testing import MariaDBPair

Make = Callable[..., Any]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(100))


class UnloggedMariaDB(MariaDBPair):
    """One server without a binary log."""

    def __init__(self) -> None:
        super().__init__()
        self.names = self.names[:1]

    def _command(self, name: str, port: int) -> list[str]:
        return [*super()._command(name, port), "--skip-log-bin", "--skip-log-slave-updates"]


@pytest.fixture(scope="module")
def unlogged(request: pytest.FixtureRequest) -> Iterator[UnloggedMariaDB]:
    request.getfixturevalue("mariadb_pair_of_session")  # skips, or fails, where there is no server
    with UnloggedMariaDB() as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Make engines on files of SQLite, by their names."""
    made: list[Engine] = []

    def make(name: str = "master", **options: Any) -> Engine:
        made.append(create_engine(f"sqlite:///{tmp_path}/{name}.db", **options))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (None, "the master is a value of type NoneType"),
            ("sqlite://", "the master is a value of type str"),
            ({"host": "master.db"}, "the master is a value of type dict"),
        ],
    )
    def test_a_master_that_is_no_engine_is_refused(self, given: Any, named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            replicate(given)

    def test_an_error_does_not_show_the_password_of_the_url(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            replicate("mysql://shop:s3cret@master.db/shop")  # type: ignore[arg-type]  # what is tested
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("driver", ["pymysql", "mysqldb"], ids=["pymysql", "mysqlclient"])
    def test_autocommit_in_the_url_or_connect_args_is_an_error_that_says_what_to_do(self, driver: str) -> None:
        address, cure = f"mysql+{driver}://shop@master.invalid/shop", 'isolation_level="AUTOCOMMIT"'
        with pytest.raises(ConfigurationError, match=cure):
            replicate(create_engine(f"{address}?autocommit=true"))
        master = create_engine(address, connect_args={"autocommit": True})
        replicate(master)
        with pytest.raises(ConfigurationError, match=cure):
            master.connect()

    @pytest.mark.parametrize("slaves", ["slave", None, 3, {"slave": 1}])
    def test_slaves_that_are_not_a_list_are_refused(self, engine: Make, slaves: Any) -> None:
        with pytest.raises(ConfigurationError, match="must be a list of engines"):
            replicate(engine(), slaves)

    def test_an_engine_instead_of_a_list_of_slaves_is_refused(self, engine: Make) -> None:
        with pytest.raises(ConfigurationError, match="must be a list of engines"):
            replicate(engine(), engine("slave"))

    def test_a_slave_that_is_no_engine_is_refused(self, engine: Make) -> None:
        with pytest.raises(ConfigurationError, match="slave number 2 is a value of type str"):
            replicate(engine(), [engine("slave"), "slave"])  # type: ignore[list-item]  # what is tested

    def test_an_engine_given_twice_is_refused(self, engine: Make) -> None:
        master, slave = engine(), engine("slave")
        with pytest.raises(ConfigurationError, match="slave number 1 was given twice"):
            replicate(master, [master])
        with pytest.raises(ConfigurationError, match="slave number 2 was given twice"):
            replicate(master, [slave, slave])
        with pytest.raises(ConfigurationError, match="slave number 1 was given twice"):
            replicate(master, [master.execution_options(colour="red")])

    def test_an_engine_that_is_replicated_already_is_refused(self, engine: Make) -> None:
        master, slave = engine(), engine("slave")
        db = replicate(master, [slave])
        for given in (master, slave, db.slaves[0], master.execution_options(colour="red")):
            with pytest.raises(ConfigurationError, match="is part of a replicated database already"):
                replicate(given)
        with pytest.raises(ConfigurationError, match="slave number 1 is part of a replicated"):
            replicate(engine("other"), [slave])
        other = engine("other")
        replicate(other.execution_options(colour="red"))
        with pytest.raises(ConfigurationError, match="is part of a replicated database already"):
            replicate(other)

    @pytest.mark.parametrize("url", ["mysql+pymysql://slave.db/shop", "sqlite+aiosqlite:///slave.db"])
    def test_a_slave_with_another_dialect_is_refused(self, engine: Make, url: str) -> None:
        other = create_engine(url) if "aio" not in url else create_async_engine(url).sync_engine
        with pytest.raises(ConfigurationError, match=r"slave number 1 uses .*, and the master's engine uses sqlite"):
            replicate(engine(), [other])

    def test_a_slave_with_another_driver_is_refused(self) -> None:
        master, slave = create_engine("mysql+pymysql://master.db/shop"), create_engine("mysql+mysqldb://slave.db/shop")
        with pytest.raises(ConfigurationError, match=r"mysql\+mysqldb"):
            replicate(master, [slave])

    def test_slaves_of_a_database_in_memory_are_refused(self, engine: Make) -> None:
        with pytest.raises(ConfigurationError, match="in memory"):
            replicate(create_engine("sqlite://"), [engine("slave")])
        with pytest.raises(ConfigurationError, match="in memory"):
            replicate(engine(), [create_engine("sqlite://")])

    def test_an_engine_with_open_connections_is_refused(self, engine: Make) -> None:
        master, slave = engine(), engine("slave")
        for used in (master, slave):
            with used.connect(), pytest.raises(ConfigurationError, match="in use"):
                replicate(master, [slave])
        replicate(master, [slave])

    def test_an_async_engine_with_idle_connections_is_refused(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        async def main() -> None:
            # Before 2.0.38, SQLAlchemy has no pool for aiosqlite by default.
            master = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/master.db", poolclass=AsyncAdaptedQueuePool)
            async with master.connect() as connection:
                await connection.execute(text("SELECT 1"))
            with pytest.raises(ConfigurationError, match=r"await engine\.dispose\(\)"):
                replicate(master)
            await master.dispose()
            replicate(master)
            await master.dispose()

        asyncio.run(main())
        assert not caplog.records

    def test_a_refused_replicate_leaves_the_engines_unchanged(self, engine: Make) -> None:
        master, slave = engine(), engine("slave")
        with pytest.raises(ConfigurationError):
            replicate(master, [slave], wait=-1)
        with pytest.raises(ConfigurationError):
            replicate(master, [slave, "slave"])  # type: ignore[list-item]  # what is tested
        replicate(master, [slave])

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"wait": -1}, "wait"),
            ({"downtime": "10"}, "downtime"),
            ({"max_lag": 0}, "max_lag"),
            ({"fallback": "slave"}, "fallback"),
            ({"on_slave_write": "ignore"}, "on_slave_write"),
            ({"known_for": -1}, "known_for"),
            ({"name": ""}, "name"),
            ({"name": 3}, "name"),
            ({"weights": [1, 2]}, "weights"),
            ({"weights": 1}, "weights"),
            ({"weights": "1"}, "weights"),
            ({"weights": [0]}, "weights"),
            ({"weights": [True]}, "weights"),
        ],
    )
    def test_wrong_options_are_refused(self, engine: Make, options: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=f'"{named}"'):
            replicate(engine(), [engine("slave")], **options)

    def test_an_unknown_option_is_refused(self, engine: Make) -> None:
        with pytest.raises(ConfigurationError, match=r'option of replicate\(\) "max_age"'):
            replicate(engine(), max_age=10)  # type: ignore[call-arg]  # what is tested

    @pytest.mark.parametrize(
        "url", ["sqlite+aiosqlite:///shop.db", "postgresql+psycopg://h/shop", "mysql+aiomysql://h/"]
    )
    def test_max_lag_with_an_asyncio_driver_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"max_lag.*(aiosqlite|psycopg|aiomysql)"):
            replicate(create_async_engine(url), max_lag=5)

    @pytest.mark.parametrize("setting", ["autocommit=1", "no_such_setting=1"])
    def test_settings_in_the_url_that_the_driver_does_not_take_are_refused(self, setting: str) -> None:
        with pytest.raises(ConfigurationError, match=setting.partition("=")[0]):
            replicate(create_engine(f"mysql+pymysql://master.db/shop?{setting}"))

    def test_unknown_settings_in_connect_args_are_refused_on_connecting(self, engine: Make) -> None:
        master = engine(connect_args={"factory": object})
        replicate(master)
        with pytest.raises(ConfigurationError, match="factory"):
            master.connect()

    @pytest.mark.parametrize("by", ["creator", "do_connect"])
    def test_an_engine_with_its_own_creator_is_refused(self, engine: Make, tmp_path: Path, by: str) -> None:
        def connect(*_: Any) -> sqlite3.Connection:
            return sqlite3.connect(tmp_path / "master.db")

        if by == "creator":
            master = engine(creator=connect)
        else:
            master = engine()
            event.listen(master, "do_connect", connect)
        replicate(master)
        with pytest.raises(ConfigurationError, match="creator="):
            master.connect()

    @pytest.mark.parametrize("role", ["the master", "slave number 1"])
    def test_an_engine_whose_pool_another_engine_has_is_refused(self, engine: Make, role: str) -> None:
        master, slave = engine(), engine("slave")
        engine("other", pool=(master if role == "the master" else slave).pool)
        with pytest.raises(ConfigurationError, match=rf"{role} shares its pool .*execution_options\(\)"):
            replicate(master, [slave])

    def test_m1_the_pool_of_a_replicated_engine_is_refused_for_another_engine(self, engine: Make) -> None:
        """That engine would commit without replswitch."""
        master = engine()
        replicate(master)
        with master.begin() as connection:
            connection.execute(text("CREATE TABLE note (id INTEGER)"))
        other = engine("master", pool=master.pool)
        for each in (other, master):
            with pytest.raises(ConfigurationError, match=r"master\.db shares its pool .*execution_options\(\)"):
                each.connect()

    def test_twophase_is_refused(self, engine: Make) -> None:
        with pytest.raises(ConfigurationError, match="twophase"):
            RoutingSession(engine(), twophase=True)

    def test_an_unknown_session_argument_is_refused(self, engine: Make) -> None:
        with pytest.raises(TypeError, match="colour"):
            RoutingSession(engine(), colour="red")


def test_the_begin_mode_of_sqlite_can_be_set(engine: Make) -> None:
    begun: list[str] = []
    master = engine(connect_args={"isolation_level": "IMMEDIATE"})
    Base.metadata.create_all(master)
    replicate(master)
    with RoutingSession(master) as session:
        raw: Any = session.connection().connection.dbapi_connection
        raw.set_trace_callback(begun.append)
        session.rollback()
        session.scalars(select(Note)).all()
        raw.set_trace_callback(None)
    assert "BEGIN IMMEDIATE" in begun


@pytest.mark.parametrize("named", [{}, {"context": None}], ids=["without context", "with context as a keyword"])
@pytest.mark.parametrize("is_master", [True, False])
def test_the_do_execute_methods_of_a_replicated_dialect_keep_their_arguments(
    engine: Make, is_master: bool, named: dict[str, Any]
) -> None:
    for name in ("journal", "slave"):
        Base.metadata.create_all(engine(name))
    db = replicate(engine("journal"), [engine("slave")])
    one = db.master if is_master else db.slaves[0]
    with one.connect() as connection:
        cursor, dialect = connection.connection.cursor(), one.dialect
        dialect.do_execute(cursor, "SELECT ?", (1,), **named)
        assert cursor.fetchall() == [(1,)]
        dialect.do_execute_no_params(cursor, "SELECT 2", **named)
        assert cursor.fetchall() == [(2,)]
        if is_master:
            dialect.do_executemany(cursor, "DELETE FROM note WHERE id = ?", [(1,), (2,)], **named)


class TestNames:
    def test_the_default_name_in_replicate_is_that_of_the_database(self, engine: Make) -> None:
        assert replicate(engine()).database.name == "main"
        assert replicate(create_engine("mysql+pymysql://master.db/shop")).database.name == "shop"
        assert replicate(engine("other"), name="stock").database.name == "stock"

    def test_servers_are_named_without_their_passwords(self) -> None:
        master = create_engine("mysql+pymysql://shop:s3cret@master.db/shop")
        slave = create_engine("mysql+pymysql://shop:s3cret@slave.db:3307/shop")
        db = replicate(master, [slave])
        assert (db.master_name, db.servers.slaves[0].name) == ("master.db", "slave.db:3307")
        assert repr(db) == "<EngineSwitch 'shop': master master.db, slaves slave.db:3307>"


class TestWithoutSlaves:
    """S10."""

    @pytest.fixture
    def master(self, engine: Make) -> Engine:
        master: Engine = engine()
        Base.metadata.create_all(master)
        return master

    def test_s10_without_slaves_the_master_serves_read_only(self, master: Engine) -> None:
        db = replicate(master)
        make_session = sessionmaker(master, class_=RoutingSession)
        with use_master(), make_session() as session:
            session.add(Note(body="hello"))
            session.commit()
        with use_slave(), make_session() as session:
            assert session.scalars(select(Note.body)).all() == ["hello"]
            assert session.get_bind() is db.slaves[0]
            with pytest.raises(SlaveWriteError):
                session.execute(text("DELETE FROM note"))
            frame = stack()
            assert frame is not None
            assert [decision.state for decision in frame.scope.decisions] == [SLAVE]

    @pytest.mark.parametrize("begins", [False, True], ids=["BEGIN by SQLAlchemy", "BEGIN as a statement"])
    def test_s10_a_sqlite_session_that_reads_and_writes_is_not_locked_by_its_own_read(
        self, engine: Make, begins: bool
    ) -> None:
        # Without WAL mode, SQLite accepts no commit while another connection reads.
        master = engine("journal", connect_args={"timeout": 0.1})
        Base.metadata.create_all(master)
        replicate(master, on_slave_write="force")
        for number in range(8):  # which of the two a session commits first is chance
            with use_slave(), RoutingSession(master) as session:
                if begins:
                    session.execute(text("BEGIN"))
                assert len(session.scalars(select(Note)).all()) == number
                session.add(Note(body="hello"))
                session.commit()
                with session.begin_nested():
                    assert len(session.scalars(select(Note)).all()) == number + 1

    def test_s10_without_slaves_a_moved_write_adds_a_decision_for_the_master(self, master: Engine) -> None:
        replicate(master, on_slave_write="force")
        with use_slave(), RoutingSession(master) as session:
            session.scalars(select(Note)).all()
            session.add(Note(body="hello"))
            session.flush()
            frame = stack()
            assert frame is not None
            assert [decision.state for decision in frame.scope.decisions] == [SLAVE, MASTER]

    @pytest.mark.parametrize(
        "options", [{}, {"answer": 42}], ids=["without execution options", "with execution options"]
    )
    @pytest.mark.parametrize("has_slave", [False, True])
    def test_listeners_can_be_registered_on_every_engine_that_runs_statements(
        self, engine: Make, has_slave: bool, options: dict[str, Any]
    ) -> None:
        db = replicate(engine("journal"), [engine("slave")] if has_slave else [])
        assert len(db.engines) == 2 + has_slave
        ran: list[str] = []
        for each in db.engines:
            event.listen(each, "before_cursor_execute", lambda *about: ran.append(about[2]))
        for is_held_back in (True, False):
            with use_slave(), RoutingSession(db.master.execution_options(**options)) as session:
                frame = stack()
                assert frame is not None
                frame.scope.held_back = is_held_back  # as the option rollout does (R6)
                session.execute(text("SELECT 1"))
        with use_master(), RoutingSession(db.master.execution_options(**options)) as session:
            session.execute(text("SELECT 1"))
        assert ran == ["SELECT 1"] * 3

    @pytest.mark.parametrize("has_slave", [False, True])
    def test_a_later_listener_on_the_class_runs_for_every_engine(
        self, engine: Make, monkeypatch: pytest.MonkeyPatch, has_slave: bool
    ) -> None:
        monkeypatch.setattr(Engine, "_has_events", False)  # an earlier test may have listened to all engines
        engine("slave").connect().close()  # makes the file
        db = replicate(engine("journal"), [engine("slave")] if has_slave else [])
        ran: list[str] = []

        def note(*about: Any) -> None:
            ran.append(about[2])

        event.listen(Engine, "before_cursor_execute", note)
        try:
            for state in (use_master, use_slave):
                with state(), RoutingSession(db.master) as session:
                    session.execute(text("SELECT 1"))
            with db.master.connect() as connection:
                connection.execute(text("SELECT 1"))
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert ran == ["SELECT 1"] * 3

    def test_s10_the_read_only_connections_have_the_connect_args_of_the_master(self, engine: Make) -> None:
        master = engine("journal", connect_args={"timeout": 7.5, "cached_statements": 3})
        Base.metadata.create_all(master)
        db = replicate(master)
        with db.use_slave(), RoutingSession(master) as session:
            assert session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar() == 7500

    def test_s10_the_read_only_connections_have_the_isolation_level_of_the_master(self, engine: Make) -> None:
        master = engine("journal", isolation_level="READ UNCOMMITTED")
        replicate(master)
        for state in (use_master, use_slave):
            with state(), RoutingSession(master) as session:
                assert session.connection().exec_driver_sql("PRAGMA read_uncommitted").scalar() == 1

    @pytest.mark.parametrize("driver", ["pymysql", "mysqldb"], ids=["pymysql", "mysqlclient"])
    def test_p3_opening_the_first_connection_without_a_binary_log_is_not_recorded(
        self, unlogged: UnloggedMariaDB, monkeypatch: pytest.MonkeyPatch, driver: str
    ) -> None:
        monkeypatch.setattr(clock, "_logged", set())
        master = create_engine(
            "mysql+{}://{user}:{password}@{host}:{port}/{database}".format(driver, **unlogged.master)
        )
        db = replicate(master)
        with use_slave(), RoutingSession(master) as session:
            session.execute(text("SELECT 1"))
            frame = stack()
            assert frame is not None
            assert frame.scope.all_written() is None
            assert [decision.state for decision in frame.scope.decisions] == [SLAVE]
        for engine in (master, *db.slaves):
            engine.dispose()

    def test_s10_with_a_database_in_memory_both_states_use_one_connection(self) -> None:
        master = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(master)
        db = replicate(master)
        assert db.slaves == ()
        make_session = sessionmaker(master, class_=RoutingSession)
        with use_slave(), make_session() as session:
            session.add(Note(body="hello"))
            session.commit()
            assert session.scalars(select(Note.body)).all() == ["hello"]
        with use_slave(), make_session() as session:
            assert session.scalars(select(Note.body)).all() == ["hello"]
            frame = stack()
            assert frame is not None
            assert [decision.state for decision in frame.scope.decisions] == [SLAVE]
        master.dispose()

    def test_s10_a_write_to_a_database_in_memory_is_not_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, "replswitch.servers")
        master = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(master)
        replicate(master, on_slave_write="error")
        with use_master(), RoutingSession(master) as session:
            session.add(Note(body="hello"))
            session.commit()
        assert not [record for record in caplog.records if record.name == "replswitch.servers"]
        master.dispose()
