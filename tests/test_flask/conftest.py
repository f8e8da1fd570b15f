"""Flask applications on a real pair, and their visitors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, redirect, request

import replswitch
from flask_replswitch import ReplSwitch
from replswitch.state import push, stack

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from replswitch import Connection
    from replswitch.testing import MariaDBPair, ReplicatedPair

NewApp = Callable[..., Flask]

SECRET = "a long random string of the tests"


def plain_app(name: str = "shop", **config: Any) -> Flask:
    """An application with a secret key and the debug header, not registered with anything."""
    app = Flask(name)
    app.config.update({"SECRET_KEY": SECRET, "REPLSWITCH_DEBUG_HEADER": True, "TESTING": True} | config)
    return app


@pytest.fixture
def new_app() -> NewApp:
    """Makes an application with a secret key and the debug header, not registered with anything."""
    return plain_app


@pytest.fixture(params=["mariadb", "mysql", "postgresql", "sqlite"])
def replicated_pair(request: pytest.FixtureRequest) -> ReplicatedPair:
    """Each kind of pair."""
    pair: ReplicatedPair = request.getfixturevalue(f"{request.param}_pair")
    return pair


@pytest.fixture(autouse=True)
def _no_state_is_left() -> Iterator[None]:
    assert stack() is None
    yield
    left = stack()
    if left is not None:
        push(None)  # type: ignore[arg-type]  # or every later test fails, too
    assert left is None, "the test left a state behind"


class Visitor:
    """A visitor with cookies of their own.

    Attributes:
        client: Flask's test client.
    """

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()

    def get(self, path: str = "/", **arguments: Any) -> Page:
        return Page(self.client.get(path, **arguments))

    def post(self, path: str = "/", **arguments: Any) -> Page:
        return Page(self.client.post(path, **arguments))

    @property
    def cookies(self) -> set[str]:
        """The names of the cookies that the visitor would send."""
        return {cookie.key for cookie in self._jar.values()}

    def take_cookies_of(self, other: Visitor) -> None:
        """Send what another visitor would send."""
        self._jar.update(other._jar)

    @property
    def _jar(self) -> dict[Any, Any]:
        assert self.client._cookies is not None
        return self.client._cookies


class Page:
    """A response to a visitor.

    Attributes:
        response: Flask's.
        text: its body.
    """

    def __init__(self, response: TestResponse) -> None:
        self.response = response
        self.text = response.get_data(as_text=True)
        self.status = response.status_code

    @property
    def told(self) -> str:
        """The text of the debug header."""
        return self.response.headers.get("Replswitch", "")

    @property
    def sides(self) -> list[str]:
        """The sides that served it, in their order."""
        return [decision.partition(";")[0] for decision in self.told.split(", ")]

    @property
    def markers(self) -> list[str]:
        """The markers that it set."""
        return [each for each in self.response.headers.getlist("Set-Cookie") if each.startswith("just_updated")]


class Board:
    """A message board: a POST writes the number ``n`` and redirects, a GET shows all numbers.

    Attributes:
        pair: the servers.
        db: the board's connection to them.
        app: the application, registered with ReplSwitch.
    """

    def __init__(self, pair: ReplicatedPair, db: Connection, app: Flask) -> None:
        self.pair = pair
        self.db = db
        self.app = app
        app.add_url_rule("/", "board", self.serve, methods=["GET", "POST"])

    def serve(self) -> Any:
        if request.method == "GET":
            return self.numbers()
        self.write(int(request.values["n"]))
        return redirect("/")

    def numbers(self) -> str:
        """Read on the side that the state asks for."""
        with self.db.cursor() as cursor:
            cursor.execute("SELECT n FROM flask_message ORDER BY n")
            return " ".join(str(row[0]) for row in cursor.fetchall())

    def write(self, number: int) -> None:
        """Write on the side that the state asks for."""
        with self.db.cursor() as cursor:
            cursor.execute(f"INSERT INTO flask_message VALUES ({number})")

    def on(self, server: str) -> str:
        """The rows on one server, over a separate connection."""
        with closing(self.pair.connect(server)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT n FROM flask_message ORDER BY n")
            return " ".join(str(row[0]) for row in cursor.fetchall())

    def visitor(self, app: Flask | None = None) -> Visitor:
        return Visitor(app or self.app)


def empty_table(pair: ReplicatedPair) -> None:
    """Make the board's table on the master, or empty it."""
    with closing(pair.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TABLE IF EXISTS flask_message")
        cursor.execute("CREATE TABLE flask_message (n INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO flask_message VALUES (1)")
    pair.wait_caught_up()


def open_board(pair: ReplicatedPair, app: Flask) -> Iterator[Board]:
    empty_table(pair)
    with replswitch.connect(master=pair.master, slaves=pair.slaves, driver=pair.driver) as db:
        yield Board(pair, db, app)


@pytest.fixture
def board(mariadb_pair: MariaDBPair) -> Iterator[Board]:
    """A board with the number 1 on the MariaDB pair, without a lag; ReplSwitch is registered."""
    app = plain_app()
    ReplSwitch(app)
    yield from open_board(mariadb_pair, app)


@pytest.fixture
def bare_board(mariadb_pair: MariaDBPair) -> Iterator[Board]:
    """The same without ReplSwitch."""
    yield from open_board(mariadb_pair, plain_app())


@pytest.fixture
def every_board(replicated_pair: ReplicatedPair) -> Iterator[Board]:
    """A board with the number 1 on each kind of pair, without a lag; ReplSwitch is registered."""
    app = plain_app()
    ReplSwitch(app)
    yield from open_board(replicated_pair, app)
