"""Requests to Flask applications on the pair, with `replswitch.connect()`, through Flask's test client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, flash, g, get_flashed_messages, stream_with_context
from tests.once import FIRST_WRITE, KNOWN_SLAVE, NEXT_WRITE, Once
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_replswitch import ReplSwitch, use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.test_flask.conftest import Board, NewApp


def test_m1_a_get_after_a_post_sees_the_write_while_the_slave_lags(every_board: Board) -> None:
    board = every_board
    board.pair.lag = 60
    visitor, other = board.visitor(), board.visitor()
    page = visitor.get()
    assert (page.text, page.sides) == ("1", ["slave"])
    page = visitor.post(data={"n": 2})
    assert (page.status, page.sides, len(page.markers)) == (302, ["master"], 1)
    for _ in range(3):
        page = visitor.get()
        assert (page.text, page.sides, page.markers) == ("1 2", ["master"], [])
    page = other.get()
    assert (page.text, page.sides) == ("1", ["slave"])
    board.pair.lag = 0
    board.pair.wait_caught_up()
    page = visitor.get()
    assert (page.text, page.sides) == ("1 2", ["slave"])


def test_m6_a_post_that_writes_nothing_sets_no_cookie(board: Board) -> None:
    board.app.add_url_rule("/search", "search", board.numbers, methods=["POST"])
    page = board.visitor().post("/search")
    assert (page.text, page.sides, page.markers) == ("1", ["master"], [])


def test_s8_a_get_that_writes_moves_and_is_marked(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    @board.app.route("/visit")
    def visit() -> str:
        board.write(2)
        return board.numbers()

    board.pair.stop_slave()
    visitor = board.visitor()
    page = visitor.get("/visit")
    assert (page.text, page.sides, len(page.markers)) == ("1 2", ["slave", "master"], 1)
    assert visitor.get().text == "1 2"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "conftest.py" in caplog.text


class TestStreaming:
    @pytest.fixture
    def streaming(self, board: Board) -> Board:
        def body() -> Iterator[str]:
            for _ in range(2):
                yield f"{board.db.state} {board.numbers()};"

        def whole() -> Response:
            return Response(stream_with_context(body()))

        board.app.add_url_rule("/stream", "stream", whole, methods=["GET", "POST"])
        board.app.add_url_rule("/on-master", "on_master", use_master(whole))
        board.app.add_url_rule("/on-slave", "on_slave", use_slave(whole), methods=["POST"])
        board.app.add_url_rule("/generator", "generator", use_master(body))
        board.app.add_url_rule("/with-status", "with_status", use_master(lambda: (body(), 201, {"X-Page": "1"})))
        board.pair.lag = 60
        board.write(2)
        return board

    @pytest.mark.parametrize(
        ("method", "path", "text"),
        [
            ("GET", "/stream", "slave 1;slave 1;"),
            ("POST", "/stream", "master 1 2;master 1 2;"),
            ("GET", "/on-master", "master 1 2;master 1 2;"),
            ("POST", "/on-slave", "slave 1;slave 1;"),
            ("GET", "/generator", "master 1 2;master 1 2;"),
            ("GET", "/with-status", "master 1 2;master 1 2;"),
        ],
        ids=["GET stream", "POST stream", "GET on-master", "POST on-slave", "GET generator", "GET with-status"],
    )
    def test_s9_every_chunk_has_the_state_of_the_request(
        self, streaming: Board, method: str, path: str, text: str
    ) -> None:
        response = streaming.visitor().client.open(path, method=method)
        assert response.get_data(as_text=True) == text
        assert response.status_code == (201 if path == "/with-status" else 200)

    def test_s9_between_the_chunks_the_state_of_the_server_is_restored(self, streaming: Board) -> None:
        response = streaming.visitor().client.get("/on-master", buffered=False)
        for _ in response.response:
            assert streaming.db.state == "master"
            with streaming.db.use_slave():
                pass
        response.close()

    def test_s9_the_body_is_closed_in_the_state_of_the_request(self, board: Board) -> None:
        told: list[str] = []

        def body() -> Iterator[str]:
            try:
                yield "one"
                yield "two"
            finally:
                told.append(board.db.state)

        @board.app.route("/gone", methods=["POST"])
        @use_slave
        def gone() -> Any:
            return body()

        response = board.visitor().client.post("/gone", buffered=False)
        assert next(iter(response.response)) == b"one"
        response.close()
        assert told == ["slave"]


class TestExceptions:
    def test_m1_a_view_that_writes_and_raises_is_marked(self, board: Board) -> None:
        board.app.config.update(TESTING=False)

        @board.app.route("/fail", methods=["POST"])
        def fail() -> str:
            board.write(2)
            raise RuntimeError("behind the write")

        board.pair.stop_slave()
        visitor = board.visitor()
        page = visitor.post("/fail")
        assert (page.status, len(page.markers)) == (500, 1)
        assert visitor.get().text == "1 2"

    def test_error_handlers_run_in_the_state_of_the_request(self, board: Board) -> None:
        @board.app.errorhandler(404)
        def missing(error: Exception) -> tuple[str, int]:
            return f"{board.db.state} {board.numbers()}", 404

        @board.app.route("/abort")
        @use_master
        def stop() -> str:
            abort(404)

        visitor = board.visitor()
        assert visitor.get("/nowhere").text == "slave 1"
        assert visitor.get("/abort").text == "slave 1"  # the view, and its decorator, are left
        assert visitor.post("/nowhere").text == "master 1"

    def test_s3_an_unhandled_exception_leaves_no_state(self, board: Board) -> None:
        @board.app.route("/fail")
        def fail() -> str:
            with use_slave():
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            board.visitor().get("/fail")
        assert board.db.state == "master"
        assert board.visitor().get().sides == ["slave"]


def test_teardown_and_before_and_after_functions_have_the_state_of_the_request(board: Board) -> None:
    told: dict[str, str] = {}

    @board.app.before_request
    def before() -> None:
        g.before = f"{board.db.state} {board.numbers()}"

    @board.app.after_request
    def after(response: Response) -> Response:
        told["after"] = f"{board.db.state} {board.numbers()}"
        return response

    @board.app.teardown_request
    def teardown_request(error: BaseException | None) -> None:
        told["request"] = f"{board.db.state} {board.numbers()}"

    @board.app.teardown_appcontext
    def teardown(error: BaseException | None) -> None:
        told["before"] = g.before
        told["context"] = f"{board.db.state} {board.numbers()}"

    board.visitor().get()
    assert told == dict.fromkeys(["before", "after", "request", "context"], "slave 1")
    board.visitor().post(data={"n": 2})
    assert told["before"] == "master 1"
    assert told["after"] == told["request"] == told["context"] == "master 1 2"


def test_m1_a_write_in_teardown_is_marked(board: Board) -> None:
    @board.app.route("/quick")
    def quick() -> str:
        return "done"

    @board.app.teardown_request
    @use_master
    def teardown(error: BaseException | None) -> None:
        if "1 2" not in board.numbers():
            board.write(2)

    board.pair.stop_slave()
    visitor = board.visitor()
    assert len(visitor.get("/quick").markers) == 1
    assert visitor.get().text == "1 2"


def test_a_redirect_has_the_flashed_message_and_the_marker(board: Board) -> None:
    @board.app.route("/flash", methods=["POST"])
    def post() -> Response:
        board.write(2)
        flash("written")
        return board.app.redirect("/flashed")  # type: ignore[return-value]  # Werkzeug's is Flask's

    @board.app.route("/flashed")
    def flashed() -> str:
        return f"{get_flashed_messages()} {board.numbers()}"

    board.pair.stop_slave()
    assert board.visitor().post("/flash", follow_redirects=True).text == "['written'] 1 2"


class TestSeveralApplications:
    def other(self, new_app: NewApp, board: Board, **config: Any) -> Flask:
        app = new_app("other", **config)
        app.add_url_rule("/", "board", board.serve, methods=["GET", "POST"])
        ReplSwitch(app)
        return app

    def test_two_applications_under_a_dispatcher_keep_their_own_markers(self, board: Board, new_app: NewApp) -> None:
        other = self.other(new_app, board, SECRET_KEY="another", REPLSWITCH_COOKIE_NAME="other_updated")
        board.pair.stop_slave()
        both = Client(DispatcherMiddleware(board.app, {"/other": other}))
        assert both.get("/other/").text == "1"
        assert both.post("/other/", data={"n": 2}).status_code == 302
        assert both.get("/other/").text == "1 2"
        assert both.get("/").text == "1", "the applications have nothing in common but the database"

    def test_m1_a_write_of_an_inner_request_is_in_the_marker_of_the_outer_response(
        self, board: Board, new_app: NewApp
    ) -> None:
        other = self.other(new_app, board, SECRET_KEY="another", REPLSWITCH_COOKIE_NAME="other_updated")

        @board.app.route("/forward", methods=["GET", "POST"])
        def forward() -> str:
            inner = other.test_client().post("/", data={"n": 2})
            return f"{inner.status_code} {board.db.state} {board.numbers()}"

        board.pair.stop_slave()
        visitor = board.visitor()
        assert visitor.get("/forward").text == "302 slave 1 2", "what was written within this request is not seen"
        assert visitor.get().text == "1 2"

    def test_m1_a_request_inside_a_request_sees_the_writes_before_it(self, board: Board, new_app: NewApp) -> None:
        other = self.other(new_app, board, SECRET_KEY="another")

        @board.app.route("/forward", methods=["POST"])
        def forward() -> str:
            board.write(2)
            with use_slave():
                inner = other.test_client().get("/")
            return f"{inner.text};{board.db.state}"

        board.pair.stop_slave()
        assert board.visitor().post("/forward").text == "1 2;master"

    def test_m1_a_write_of_a_mounted_application_gets_the_markers_of_both_applications(
        self, board: Board, new_app: NewApp
    ) -> None:
        other = self.other(new_app, board, SECRET_KEY="another", REPLSWITCH_COOKIE_NAME="other_updated")
        middleware: Any = board.app.wsgi_app
        middleware.application = DispatcherMiddleware(middleware.application, {"/other": other})
        board.pair.stop_slave()
        visitor = board.visitor()
        page = visitor.post("/other/", data={"n": 2})
        assert {name.partition("=")[0].rstrip("_123") for name in page.response.headers.getlist("Set-Cookie")} == {
            "just_updated",
            "other_updated",
        }
        assert visitor.get("/other/").text == "1 2"
        assert visitor.get().text == "1 2"


def test_an_application_called_in_a_switched_block_chooses_its_own_state(board: Board) -> None:
    with board.db.use_master():
        assert board.visitor().get().sides == ["slave"]
        assert board.db.state == "master"


def test_enabled_false_keeps_every_request_on_the_master_without_markers(board: Board, new_app: NewApp) -> None:
    app = new_app(REPLSWITCH_ENABLED=False)
    app.add_url_rule("/", "board", board.serve, methods=["GET", "POST"])
    ReplSwitch(app)
    visitor = board.visitor(app)
    assert visitor.get().sides == ["master"]
    assert not visitor.post(data={"n": 2}).markers


def test_a_request_compares_merges_and_writes_its_marker_once(
    every_board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, once = every_board, Once(monkeypatch)
    visitor = board.visitor()
    assert once.of(visitor.post, data={"n": 2}) == FIRST_WRITE
    board.pair.wait_caught_up()
    visitor.get()  # which asks the slave
    assert once.of(visitor.get).items() >= KNOWN_SLAVE.items()
    assert once.of(visitor.post, data={"n": 3}) == NEXT_WRITE
