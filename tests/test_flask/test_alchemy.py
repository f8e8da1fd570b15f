"""With Flask-SQLAlchemy: nothing but the configuration and ``ReplSwitch(app)`` is new."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from flask import Flask, redirect, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.record_queries import get_recorded_queries
from flask_sqlalchemy.session import Session as FlaskSession
from flask_sqlalchemy.track_modifications import models_committed
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_replswitch import ReplSwitch, use_master, use_slave
from replswitch import ConfigurationError, connect
from replswitch.sqlalchemy import RoutingSession

if TYPE_CHECKING:
    from tests.test_flask.conftest import NewApp, Visitor

    from replswitch.testing import MariaDBPair, PostgreSQLPair, ReplicatedPair

CreateApp = Callable[..., Flask]

DRIVERS = {"pymysql": "mysql+pymysql", "psycopg": "postgresql+psycopg", "sqlite3": "sqlite"}


class Base(DeclarativeBase):
    """As Flask-SQLAlchemy's manual has it."""


db = SQLAlchemy(model_class=Base)


class Message(db.Model):  # type: ignore[name-defined,misc]  # a class that Flask-SQLAlchemy makes at run time
    """The rows of the board. Nothing in it names a slave."""

    __tablename__ = "alchemy_message"
    n: Mapped[int] = mapped_column(primary_key=True)


def uri(pair: ReplicatedPair, server: dict[str, Any]) -> str:
    """The address of a server as SQLAlchemy has it."""
    if pair.driver == "sqlite3":
        return f"sqlite:///{server['database']}"
    return sa.URL.create(
        DRIVERS[pair.driver],
        server["user"],
        server["password"],
        server["host"],
        server["port"],
        server.get("dbname") or server["database"],
    ).render_as_string(hide_password=False)


def config_of(pair: ReplicatedPair) -> dict[str, Any]:
    """The configuration for a pair."""
    return {
        "SQLALCHEMY_DATABASE_URI": uri(pair, pair.master),
        "SQLALCHEMY_BINDS": {"slave1": uri(pair, pair.slaves[0])},
        "REPLSWITCH_SLAVES": ["slave1"],
    }


def serve() -> Any:
    if request.method == "POST":
        db.session.add(Message(n=int(request.values["n"])))
        db.session.commit()
        return redirect("/")
    return numbers()


def numbers() -> str:
    return " ".join(map(str, db.session.scalars(sa.select(Message.n).order_by(Message.n))))


@pytest.fixture
def create_app(new_app: NewApp) -> Iterator[CreateApp]:
    """A factory, which takes the configuration. What it makes is closed when the test is over."""
    made: list[Flask] = []

    def create(**config: Any) -> Flask:
        app = new_app(**config)
        db.init_app(app)
        made.append(app)
        ReplSwitch(app)
        app.add_url_rule("/", "board", serve, methods=["GET", "POST"])
        return app

    yield create
    for app in made:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()
        registered = app.extensions.get("replswitch")
        for engine in registered.database.slaves if registered and registered.database else ():
            engine.dispose()


@pytest.fixture
def pair(replicated_pair: ReplicatedPair) -> ReplicatedPair:
    """Each kind of pair, with a table that has one message."""
    with closing(replicated_pair.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TABLE IF EXISTS alchemy_message")
        cursor.execute("CREATE TABLE alchemy_message (n INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO alchemy_message VALUES (1)")
    replicated_pair.wait_caught_up()
    return replicated_pair


@pytest.fixture
def mariadb(mariadb_pair: MariaDBPair) -> MariaDBPair:
    """The MariaDB pair, with a table that has one message."""
    with closing(mariadb_pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE alchemy_message (n INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO alchemy_message VALUES (1)")
    mariadb_pair.wait_caught_up()
    return mariadb_pair


@pytest.fixture
def new_visitor() -> Callable[[Flask], Visitor]:
    """Makes a visitor of an application."""
    from tests.test_flask.conftest import Visitor  # noqa: PLC0415 - pytest imports a conftest in its own way

    return Visitor


Visitors = Callable[[Flask], "Visitor"]


class TestRequests:
    def test_m1_a_visitor_sees_their_own_write(
        self, create_app: CreateApp, pair: ReplicatedPair, new_visitor: Visitors
    ) -> None:
        app = create_app(**config_of(pair))
        pair.lag = 2
        visitor = new_visitor(app)
        page = visitor.get()
        assert (page.text, page.sides) == ("1", ["slave"])
        page = visitor.post(data={"n": 2})
        assert (page.status, page.sides, len(page.markers)) == (302, ["master"], 1)
        for _ in range(3):
            page = visitor.get()
            assert (page.text, page.sides, page.markers) == ("1 2", ["master"], [])
        assert new_visitor(app).get().text == "1"
        pair.lag = 0
        pair.wait_caught_up()
        page = visitor.get()
        assert (page.text, page.sides) == ("1 2", ["slave"])

    def test_decorators_streams_and_legacy_queries_follow_the_state(
        self, create_app: CreateApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        app = create_app(**config_of(mariadb))

        @app.route("/exact")
        @use_master
        def exact() -> str:
            return " ".join(str(message.n) for message in Message.query.order_by(Message.n))

        @app.route("/stream", methods=["POST"])
        @use_slave
        def stream() -> Any:
            return stream_with_context(f"{number} " for number in db.session.scalars(sa.select(Message.n)))

        @app.route("/or-404/<int:n>")
        def or_404(n: int) -> str:
            return str(db.get_or_404(Message, n).n)

        mariadb.lag = 2
        visitor = new_visitor(app)
        visitor.post(data={"n": 2})
        stranger = new_visitor(app)
        assert stranger.get("/exact").text == "1 2"
        page = stranger.post("/stream")
        assert page.text == "1 "
        assert stranger.get("/or-404/2").status == 404
        assert visitor.get("/or-404/2").text == "2"

    def test_s8_a_get_that_writes_moves_to_the_master(
        self, create_app: CreateApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        app = create_app(**config_of(mariadb))

        @app.route("/visit")
        def visit() -> str:
            before = numbers()
            db.session.commit()
            db.session.add(Message(n=2))
            db.session.commit()
            return f"{before};{numbers()}"

        mariadb.lag = 2
        visitor = new_visitor(app)
        page = visitor.get("/visit")
        assert (page.text, page.sides[0], page.sides[-1], len(page.markers)) == ("1;1 2", "slave", "master", 1)
        assert visitor.get().text == "1 2"

    def test_m1_a_commit_in_teardown_is_marked(
        self, create_app: CreateApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        app = create_app(**config_of(mariadb))

        @app.route("/later", methods=["POST"])
        def later() -> str:
            db.session.add(Message(n=2))
            return "later"

        @app.teardown_request
        def commit(error: BaseException | None) -> None:
            db.session.commit()

        mariadb.lag = 2
        visitor = new_visitor(app)
        assert len(visitor.post("/later").markers) == 1
        assert visitor.get().text == "1 2"

    def test_f1_reads_of_a_killed_slave_run_on_the_master(
        self, create_app: CreateApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        visitor = new_visitor(create_app(**config_of(mariadb)))
        assert visitor.get().sides == ["slave"]
        mariadb.kill("slave")
        pages = [visitor.get() for _ in range(5)]
        assert [(page.status, page.text, page.sides[-1]) for page in pages] == [(200, "1", "master")] * 5

    def test_outside_a_request_sessions_follow_use_master_and_use_slave(
        self, create_app: CreateApp, mariadb: MariaDBPair
    ) -> None:
        app = create_app(**config_of(mariadb))
        mariadb.lag = 2
        with app.app_context():
            db.session.add(Message(n=2))
            db.session.commit()
            assert numbers() == "1 2"
            db.session.rollback()
            with use_slave():
                assert numbers() == "1"
            db.session.rollback()
            with app.extensions["replswitch"].database.use_slave():
                assert numbers() == "1"


class TestConfiguration:
    def test_slaves_can_be_given_as_urls(
        self, create_app: CreateApp, pair: ReplicatedPair, new_visitor: Visitors
    ) -> None:
        for slaves in ((uri(pair, pair.slaves[0]),), (make_url(uri(pair, pair.slaves[0])),), uri(pair, pair.slaves[0])):
            app = create_app(
                SQLALCHEMY_DATABASE_URI=uri(pair, pair.master),
                SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 3} if pair.driver == "pymysql" else {},
                SQLALCHEMY_RECORD_QUERIES=True,
                REPLSWITCH_SLAVES=slaves,
            )

            @app.route("/recorded")
            def recorded() -> str:
                numbers()
                return str(len(get_recorded_queries()))

            page = new_visitor(app).get("/recorded")
            assert (page.text, page.sides) == ("1", ["slave"])
            with app.app_context():
                assert list(db.engines) == [None]
                assert set(db.metadatas) <= {None, "slave1", "stats"}, "create_all() would look for more binds"
            if pair.driver == "pymysql":
                (engine,) = app.extensions["replswitch"].database.slaves
                assert engine.pool.size() == 3
                assert engine.url.query["charset"] == "utf8mb4"

    def test_s10_without_slaves_the_master_serves_read_only(
        self, create_app: CreateApp, pair: ReplicatedPair, new_visitor: Visitors
    ) -> None:
        visitor = new_visitor(create_app(SQLALCHEMY_DATABASE_URI=uri(pair, pair.master)))
        assert visitor.get().sides == ["slave"]
        visitor.post(data={"n": 2})
        page = visitor.get()
        assert (page.text, page.sides) == ("1 2", ["slave"])

    def test_a_sqlite_database_in_memory_works(self, create_app: CreateApp, new_visitor: Visitors) -> None:
        app = create_app(SQLALCHEMY_DATABASE_URI="sqlite:///:memory:")
        with app.app_context():
            db.create_all(bind_key=None)
        visitor = new_visitor(app)
        assert visitor.get().text == ""
        visitor.post(data={"n": 2})
        assert visitor.get().text == "2"

    def test_the_options_of_the_database_are_read_from_the_configuration(
        self, create_app: CreateApp, mariadb: MariaDBPair
    ) -> None:
        app = create_app(**config_of(mariadb), REPLSWITCH_WAIT=2.5, REPLSWITCH_DOWNTIME=7, REPLSWITCH_MAX_LAG=30,
                         REPLSWITCH_FALLBACK="error", REPLSWITCH_ON_SLAVE_WRITE="error")  # fmt: skip
        options = app.extensions["replswitch"].database.database.options
        assert (options.wait, options.downtime, options.max_lag) == (2.5, 7, 30)
        assert (options.fallback, options.on_slave_write) == ("error", "error")

    def test_several_applications_share_one_sqlalchemy_object(
        self, create_app: CreateApp, mariadb: MariaDBPair, sqlite_pair: ReplicatedPair, new_app: NewApp,
        new_visitor: Visitors,
    ) -> None:  # fmt: skip
        first, second = create_app(**config_of(mariadb)), create_app(**config_of(sqlite_pair))
        plain = new_app(SQLALCHEMY_DATABASE_URI=uri(mariadb, mariadb.master))
        db.init_app(plain)
        plain.add_url_rule("/", "board", serve, methods=["GET", "POST"])
        with second.app_context():
            db.create_all(bind_key=None)
        mariadb.lag = 2
        visitor = new_visitor(first)
        visitor.post(data={"n": 2})
        assert new_visitor(first).get().text == "1"
        assert new_visitor(plain).get().text == "1 2", "an application without ReplSwitch reads from the master"
        assert new_visitor(second).post(data={"n": 3}).status == 302
        assert new_visitor(first).get().text == "1"
        with plain.app_context():
            db.engine.dispose()

    def test_the_session_class_and_listeners_of_the_application_are_kept(
        self, new_app: NewApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        class Counting(FlaskSession):
            made = 0

            def __init__(self, **options: Any) -> None:
                Counting.made += 1
                super().__init__(**options)

        own = SQLAlchemy(model_class=type("OwnBase", (DeclarativeBase,), {}), session_options={"class_": Counting})
        heard: list[str] = []
        sa.event.listen(own.session, "after_commit", lambda session: heard.append("commit"))
        app = new_app(**config_of(mariadb), SQLALCHEMY_TRACK_MODIFICATIONS=True)

        class Row(own.Model):  # type: ignore[name-defined,misc]  # as above
            __tablename__ = "alchemy_message"
            n: Mapped[int] = mapped_column(primary_key=True)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            own.init_app(app)
        ReplSwitch(app)

        @app.route("/", methods=["GET", "POST"])
        def view() -> str:
            if request.method == "POST":
                own.session.add(Row(n=2))
                own.session.commit()
            return str(own.session.scalar(sa.select(sa.func.count()).select_from(Row)))

        def committed(sender: Flask, changes: list[tuple[Any, str]]) -> None:
            heard.extend(operation for _, operation in changes)

        models_committed.connect(committed, app)
        mariadb.lag = 2
        visitor = new_visitor(app)
        assert [visitor.get().text, visitor.post().text, visitor.get().text] == ["1", "2", "2"]
        assert new_visitor(app).get().text == "1"
        assert sorted(heard) == ["commit", "insert"]
        assert Counting.made == 4
        assert issubclass(own.session.session_factory.class_, RoutingSession)
        with app.app_context():
            for engine in own.engines.values():
                engine.dispose()
        for engine in app.extensions["replswitch"].database.slaves:
            engine.dispose()

    @pytest.mark.parametrize(
        ("config", "told"),
        [
            ({"REPLSWITCH_SLAVES": ["slave2"]}, r'names "slave2", which is not a key of SQLALCHEMY_BINDS.*"slave1"\?'),
            ({"REPLSWITCH_SLAVES": ["other"]}, r'names "other", .*Its keys are: slave1\.'),
            ({"REPLSWITCH_SLAVES": ["x"], "SQLALCHEMY_BINDS": {}}, r"It has no keys\."),
            ({"REPLSWITCH_SLAVES": b"slave1"}, "is a value of type bytes. It must be a list of bind keys"),
            ({"REPLSWITCH_SLAVES": "slave1 slave2"}, r'names "slave2", which is not a key of SQLALCHEMY_BINDS'),
            ({"REPLSWITCH_SLAVES": "mysql://u:pa ss@h/d"}, "contains URLs, and an entry that is not a URL. It must be"),
            ({"REPLSWITCH_SLAVES": {"slave1": {}}}, "is a value of type dict"),
            ({"REPLSWITCH_SLAVES": [{"url": "sqlite://"}]}, "contains an entry of type dict"),
            ({"REPLSWITCH_SLAVES": [""]}, "contains an empty string"),
            ({"REPLSWITCH_SLAVES": ["slave1", "slave1"]}, "slave number 2 was given twice"),
            ({"REPLSWITCH_SLAVES": ["slave1"], "SQLALCHEMY_BINDS": {"slave1": "sqlite:///x.db"}},
             r"slave number 1 uses sqlite\+pysqlite, .* engine uses mysql\+pymysql.* REPLSWITCH_SLAVES"),
            ({"REPLSWITCH_SLAVES": ["postgresql+nodriver://me:s3cret@slave/shop"]}, "cannot be used"),
            ({"REPLSWITCH_SLAVES": ["slave1"], "SQLALCHEMY_DATABASE_URI": None}, "but SQLALCHEMY_DATABASE_URI is not"),
        ],
    )  # fmt: skip
    def test_bad_slaves_are_refused_at_start(self, create_app: CreateApp, config: dict[str, Any], told: str) -> None:
        good = {
            "SQLALCHEMY_DATABASE_URI": "mysql+pymysql://shop:s3cret@master.db/shop",
            "SQLALCHEMY_BINDS": {"slave1": "mysql+pymysql://shop:s3cret@slave.db/shop"},
        }
        with pytest.raises(ConfigurationError, match=told) as raised:
            create_app(**good | config)
        assert "s3cret" not in str(raised.value)

    def test_replswitch_before_db_init_app_is_refused(self, new_app: NewApp, mariadb: MariaDBPair) -> None:
        config = config_of(mariadb)
        for given in (config, {"SQLALCHEMY_DATABASE_URI": config["SQLALCHEMY_DATABASE_URI"]}):
            app = new_app(**given)
            with pytest.raises(
                ConfigurationError, match=r"is set, but no Flask-SQLAlchemy .* db\.init_app\(app\) before"
            ):
                ReplSwitch(app)
            db.init_app(app)
            ReplSwitch(app)

    def test_m8_the_configuration_names_the_replicated_set(self, create_app: CreateApp) -> None:
        config = {"SQLALCHEMY_DATABASE_URI": "mysql+pymysql://shop:s3cret@master.db/shop"}
        named, by_address = (
            create_app(**config, **more).extensions["replswitch"].database.database
            for more in ({"REPLSWITCH_NAME": "orders"}, {})
        )
        assert (named.name, named.set_name) == ("orders", "orders")
        assert by_address.name == "shop"
        assert by_address.set_name == connect({"host": "master.db"}).database.set_name

    def test_init_app_works_after_it_was_refused(self, new_app: NewApp, mariadb: MariaDBPair) -> None:
        app = new_app(**config_of(mariadb) | {"REPLSWITCH_SLAVES": ["slave"]})
        db.init_app(app)
        with pytest.raises(ConfigurationError):
            ReplSwitch(app)
        app.config["REPLSWITCH_SLAVES"] = ["slave1"]
        ReplSwitch(app)

    def test_a_flask_sqlalchemy_engine_in_use_is_refused(self, new_app: NewApp, mariadb: MariaDBPair) -> None:
        app = new_app(**config_of(mariadb))
        db.init_app(app)
        with app.app_context():
            assert numbers() == "1"
            with pytest.raises(ConfigurationError, match=r"in use, .* right after db\.init_app\(app\)"):
                ReplSwitch(app)
        ReplSwitch(app)
        with app.app_context():
            assert numbers() == "1"

    def test_create_all_leaves_the_slaves_alone(self, new_app: NewApp, mariadb: MariaDBPair) -> None:
        own = SQLAlchemy()
        own.Table("alchemy_made", sa.Column("n", sa.Integer, primary_key=True))
        app = new_app(**config_of(mariadb))
        own.init_app(app)
        ReplSwitch(app)
        with app.app_context():
            own.create_all()
            mariadb.wait_caught_up()
            with use_slave():
                assert own.session.scalar(sa.text("SELECT COUNT(*) FROM alchemy_made")) == 0
            own.session.remove()
            own.drop_all()
            for engine in own.engines.values():
                engine.dispose()

    def test_a_configuration_with_slaves_can_be_tested_on_sqlite_in_memory(
        self, create_app: CreateApp, mariadb: MariaDBPair, new_visitor: Visitors
    ) -> None:
        config = config_of(mariadb) | {"SQLALCHEMY_DATABASE_URI": "sqlite:///:memory:"}
        with pytest.raises(ConfigurationError, match="Make both with the same"):
            create_app(**config)
        app = create_app(**config | {"REPLSWITCH_SLAVES": []})
        with app.app_context():
            db.create_all(bind_key=None)
        assert new_visitor(app).get().text == ""

    def test_an_application_without_a_default_bind_has_no_database(
        self, create_app: CreateApp, mariadb: MariaDBPair
    ) -> None:
        app = create_app(SQLALCHEMY_BINDS={"stats": uri(mariadb, mariadb.master)})
        assert app.extensions["replswitch"].database is None


def test_psycopg2_serves_own_writes_and_the_command(
    create_app: CreateApp, postgresql_pair: PostgreSQLPair, new_visitor: Visitors
) -> None:
    with closing(postgresql_pair.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS alchemy_message")
        connection.execute("CREATE TABLE alchemy_message (n INTEGER PRIMARY KEY)")
    postgresql_pair.wait_caught_up()
    uris = [uri(postgresql_pair, each) for each in (postgresql_pair.master, *postgresql_pair.slaves)]
    master, slave = (each.replace("+psycopg:", "+psycopg2:") for each in uris)
    app = create_app(SQLALCHEMY_DATABASE_URI=master, REPLSWITCH_SLAVES=[slave])
    visitor = new_visitor(app)
    assert visitor.get().sides == ["slave"]
    postgresql_pair.stop_slave()
    assert visitor.post(data={"n": 1}).markers
    page = visitor.get()
    assert (page.text, page.sides) == ("1", ["master"])
    assert new_visitor(app).get().text == ""
    postgresql_pair.start_slave()
    postgresql_pair.wait_caught_up()
    assert (visitor.get().text, visitor.get().sides) == ("1", ["slave"])
    result = app.test_cli_runner().invoke(args=["replswitch"])
    assert result.exit_code == 0, result.output
    assert "running" in result.output


class TestCommand:
    def test_flask_replswitch_lists_the_servers_of_flask_sqlalchemy(
        self, create_app: CreateApp, pair: ReplicatedPair
    ) -> None:
        result = create_app(**config_of(pair)).test_cli_runner().invoke(args=["replswitch"])
        assert result.exit_code == 0, result.output
        _, _, master, slave, _ = result.output.split("\n")
        assert master.split()[0::2][:2] == ["master", "yes"]
        assert slave.split()[0::2][:2] == ["slave", "yes"]
        assert ("running" in slave) is (pair.driver != "sqlite3")

    def test_flask_replswitch_without_slaves_lists_the_master_as_slave(
        self, create_app: CreateApp, pair: ReplicatedPair
    ) -> None:
        app = create_app(SQLALCHEMY_DATABASE_URI=uri(pair, pair.master))
        result = app.test_cli_runner().invoke(args=["replswitch"])
        assert result.exit_code == 0, result.output
        assert result.output.endswith(": it is the master itself\n")

    def test_flask_replswitch_uses_the_settings_in_connect_args(
        self, create_app: CreateApp, mariadb: MariaDBPair
    ) -> None:
        config = config_of(mariadb)
        bare = make_url(config["SQLALCHEMY_DATABASE_URI"])
        app = create_app(
            **config
            | {
                "SQLALCHEMY_DATABASE_URI": bare.set(password=None),
                "SQLALCHEMY_ENGINE_OPTIONS": {"connect_args": {"password": bare.password}},
            }
        )
        result = app.test_cli_runner().invoke(args=["replswitch"])
        assert result.exit_code == 0, result.output
        with app.app_context():
            assert numbers() == "1"

    def test_flask_replswitch_reports_a_dead_slave(self, create_app: CreateApp, mariadb: MariaDBPair) -> None:
        app = create_app(**config_of(mariadb))
        mariadb.kill("slave")
        result = app.test_cli_runner().invoke(args=["replswitch"])
        assert result.exit_code == 1
        assert "no connection: Can't connect" in result.output
