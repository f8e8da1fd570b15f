"""Cases in which flask-replicated 2.1 fails: Flask-SQLAlchemy 3, and a factory."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from flask import Flask, Response
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from flask_replswitch import ReplSwitch, use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.test_flask.conftest import NewApp

    from replswitch.testing import ReplicatedPair


@pytest.fixture(params=["mariadb", "postgresql"])
def pair(request: pytest.FixtureRequest) -> ReplicatedPair:
    """A pair with a table that has one row."""
    pair: ReplicatedPair = request.getfixturevalue(f"{request.param}_pair")
    with closing(pair.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TABLE IF EXISTS peer_message")
        cursor.execute("CREATE TABLE peer_message (n INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO peer_message VALUES (1)")
    pair.wait_caught_up()
    return pair


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def uri(server: dict[str, Any]) -> str:
    scheme = "postgresql+psycopg" if "dbname" in server else "mysql+pymysql"
    return f"{scheme}://{server['user']}:{server['password']}@{server['host']}:{server['port']}/shop"


def engine(server: dict[str, Any], exits: ExitStack) -> sa.Engine:
    made = sa.create_engine(uri(server))
    exits.callback(made.dispose)
    return made


def visit(app: Flask) -> None:
    """A stranger reads from the slave, and a writer sees the write; the decorators choose the other side."""
    visitor, stranger = app.test_client(), app.test_client()
    assert [stranger.get("/").text, visitor.post("/").text, visitor.get("/").text] == ["1", "2", "2"]
    assert stranger.get("/").text == "1"
    assert stranger.get("/master").text == "2"
    assert app.test_client().post("/slave").text == "1"


def test_flask_sqlalchemy_works_with_an_application_factory(
    pair: ReplicatedPair, new_app: NewApp, exits: ExitStack
) -> None:
    class Base(DeclarativeBase):
        pass

    db, extension = SQLAlchemy(model_class=Base), ReplSwitch()

    class Message(db.Model):  # type: ignore[name-defined,misc]  # a class that Flask-SQLAlchemy makes at run time
        __tablename__ = "peer_message"
        n: Mapped[int] = mapped_column(primary_key=True)

    def count() -> str:
        return str(db.session.query(Message).count())

    def write() -> str:
        db.session.add(Message(n=2))
        db.session.commit()
        return count()

    def create_app() -> Flask:
        app = new_app(
            SQLALCHEMY_DATABASE_URI=uri(pair.master),
            SQLALCHEMY_BINDS={"slave": uri(pair.slaves[0])},
            REPLSWITCH_SLAVES=["slave"],
        )
        db.init_app(app)
        extension.init_app(app)
        app.add_url_rule("/", "count", count)
        app.add_url_rule("/", "write", write, methods=["POST"])
        app.add_url_rule("/master", "master", use_master(count))
        app.add_url_rule("/slave", "slave", use_slave(count), methods=["POST"])
        return app

    pair.stop_slave()
    app = create_app()
    visit(app)
    with app.app_context():
        for each in db.engines.values():
            exits.callback(each.dispose)


def test_a_routing_session_works_without_flask_sqlalchemy(
    pair: ReplicatedPair, new_app: NewApp, exits: ExitStack
) -> None:
    master = engine(pair.master, exits)
    database = replicate(master, [engine(slave, exits) for slave in pair.slaves])
    session_of = sessionmaker(master, class_=RoutingSession)

    def count() -> str:
        with session_of() as session:
            return str(session.scalar(sa.text("SELECT COUNT(*) FROM peer_message")))

    def write() -> str:
        with session_of.begin() as session:
            session.execute(sa.text("INSERT INTO peer_message VALUES (2)"))
        return count()

    app = new_app()
    ReplSwitch(app, databases=[database])
    app.add_url_rule("/", "count", count)
    app.add_url_rule("/", "write", write, methods=["POST"])
    app.add_url_rule("/master", "master", use_master(count))
    app.add_url_rule("/slave", "slave", use_slave(count), methods=["POST"])
    pair.lag = 60
    visit(app)
    result = app.test_cli_runner().invoke(args=["replswitch"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("shop\n")


def test_m5_a_cookie_that_is_no_marker_is_ignored(pair: ReplicatedPair, new_app: NewApp) -> None:
    app = new_app()
    ReplSwitch(app)
    app.add_url_rule("/", "page", lambda: Response("page"))
    client = app.test_client()
    for value in ("true", "", "x" * 4000, "1;path=/"):
        client.set_cookie("just_updated", value)
        assert client.get("/", headers={"X-Replicated-State": "master"}).headers["Replswitch"].startswith("slave")
