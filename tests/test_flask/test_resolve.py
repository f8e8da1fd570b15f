"""Slaves behind a host name with several addresses, with Flask-SQLAlchemy and in ``flask replswitch`` (F7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.engine import make_url
from tests.behind_name import NAME, ONE, TWO, Names, ProxyAt, proxies
from tests.test_flask.conftest import Visitor
from tests.test_flask.test_alchemy import uri

import replswitch
from flask_replswitch import ReplSwitch

if TYPE_CHECKING:
    from tests.test_flask.conftest import NewApp

    from replswitch.testing import MariaDBPair

CreateApp = Callable[..., Flask]


@pytest.fixture
def at(mariadb_pair: MariaDBPair) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the slave at each address, all with one port."""
    with proxies(mariadb_pair.slaves[0]["port"]) as found:
        yield found


@pytest.fixture
def create_app(new_app: NewApp, mariadb_pair: MariaDBPair, at: dict[str, ProxyAt]) -> Iterator[CreateApp]:
    """A factory of applications with slaves behind `NAME`; ``as_bind`` names them by a bind key."""
    made: list[tuple[Flask, SQLAlchemy]] = []

    def create(*, as_bind: bool = False) -> Flask:
        master = uri(mariadb_pair, mariadb_pair.master)
        slave = make_url(master).set(host=NAME, port=at[ONE].port).update_query_dict({"resolve": "true"})
        address = slave.render_as_string(hide_password=False)
        slaves = {"SQLALCHEMY_BINDS": {"slaves": address}} if as_bind else {}
        app = new_app(SQLALCHEMY_DATABASE_URI=master, **slaves, REPLSWITCH_SLAVES=["slaves"] if as_bind else address)
        db = SQLAlchemy(app)
        ReplSwitch(app)
        app.add_url_rule("/", "read", lambda: str(db.session.scalar(text("SELECT 1"))))
        made.append((app, db))
        return app

    yield create
    for app, _ in made:
        for engine in app.extensions["replswitch"].database.engines:
            engine.dispose()


def report(app: Flask) -> Any:
    return app.test_cli_runner().invoke(args=["replswitch"])


@pytest.mark.parametrize("as_bind", [False, True])
def test_f7_requests_read_from_each_address(
    create_app: CreateApp, at: dict[str, ProxyAt], names: Names, as_bind: bool
) -> None:
    app = create_app(as_bind=as_bind)
    assert names.asked == 0, "the start of the application waits for a name server"
    visitor = Visitor(app)
    for _ in range(25):
        page = visitor.get()
        assert (page.text, page.sides) == ("1", ["slave"])
    assert at[ONE].connections == at[TWO].connections == 1


def test_f7_the_command_shows_each_address_of_now(create_app: CreateApp, names: Names, at: dict[str, ProxyAt]) -> None:
    app, both = create_app(), {f"{NAME} ({address}:{at[ONE].port})" for address in (ONE, TWO)}
    result = report(app)
    assert result.exit_code == 0, result.output
    assert {each for each in both if f"slave   {each}  yes" in result.output} == both
    names.addresses = (TWO,)
    for name in app.extensions["replswitch"].database.servers.names:
        name.due = 0
    assert f"({ONE}:" not in report(app).output


def test_f7_the_command_shows_a_name_without_an_address(create_app: CreateApp, names: Names, at: Any) -> None:
    names.addresses = ()
    result = report(create_app())
    assert result.exit_code == 1
    assert f"the slave {NAME}:{at[ONE].port}: no connection: Name or service not known" in result.output


def test_f7_the_command_looks_up_the_names_of_connect_when_it_runs(
    new_app: NewApp, mariadb_pair: MariaDBPair, at: dict[str, ProxyAt], names: Names
) -> None:
    slave = {"host": NAME, "port": at[ONE].port, "resolve": True}
    with replswitch.connect(mariadb_pair.master, [slave]) as db:
        app = new_app()
        ReplSwitch(app, databases=[db])
        assert names.asked == 0, "the start of the application waits for a name server"
        assert f"{NAME} ({TWO}:{at[ONE].port})" in report(app).output
