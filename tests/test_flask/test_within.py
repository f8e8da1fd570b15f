"""Requests and threads inside a request, with the middleware, and with decorated views only (M1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from flask import copy_current_request_context, redirect, request
from tests.test_flask.conftest import Board, empty_table, plain_app

import replswitch
from flask_replswitch import ReplSwitch, use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Response

    from replswitch.testing import MariaDBPair


@pytest.fixture(params=["pymysql", "mysqlclient"])
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of the board."""
    return str(request.param)


@pytest.fixture(params=["with the middleware", "without the middleware"])
def within(request: pytest.FixtureRequest, driver: str, mariadb_pair: MariaDBPair) -> Iterator[Board]:
    """A board with decorated views, one of which sends requests to the board itself."""
    app = plain_app()
    if request.param == "with the middleware":
        ReplSwitch(app)
    empty_table(mariadb_pair)
    with replswitch.connect(master=mariadb_pair.master, slaves=mariadb_pair.slaves, driver=driver) as db:
        board = Board(mariadb_pair, db, app)
        app.add_url_rule("/read", view_func=use_slave(board.numbers))
        yield board


def test_m1_a_post_and_its_inner_requests_see_the_writes_of_each_other(within: Board) -> None:
    found: list[str] = []

    @within.app.route("/write", methods=["POST"])
    @use_master
    def write() -> Response:
        within.write(int(request.values["n"]))
        return redirect("/read")

    @within.app.route("/batch", methods=["POST"])
    @use_master
    def batch() -> str:
        within.write(2)
        found.append(within.app.test_client().get("/read").text)
        within.app.test_client().post("/write?n=3")
        with use_slave():
            found.append(within.numbers())
        return "done"

    within.pair.lag = 60
    visitor = within.visitor()
    assert len(visitor.post("/batch").markers) == 1
    assert found == ["1 2", "1 2 3"]
    assert visitor.get("/read").text == "1 2 3"
    assert within.visitor().get("/read").text == "1"


def test_m1_a_commit_in_a_thread_with_a_copy_of_the_context_is_marked(within: Board) -> None:
    @within.app.route("/write", methods=["POST"])
    @use_master
    def write() -> str:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_current_request_context(lambda: within.write(int(request.values["n"])))).result()
        return "done"

    within.pair.lag = 60
    visitor = within.visitor()
    assert len(visitor.post("/write?n=2").markers) == 1
    assert visitor.get("/read").text == "1 2"


def test_m1_a_decorated_view_that_writes_last_is_marked(within: Board) -> None:
    @within.app.route("/write", methods=["POST"])
    @use_master
    def write() -> str:
        within.write(2)
        return "done"

    within.pair.lag = 60
    visitor = within.visitor()
    assert len(visitor.post("/write").markers) == 1
    assert visitor.get("/read").text == "1 2"
