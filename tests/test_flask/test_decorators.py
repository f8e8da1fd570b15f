"""``use_master`` and ``use_slave`` on views, with the middleware around them and without."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Response, abort, current_app, stream_with_context
from flask.views import MethodView, View

from flask_replswitch import use_master, use_slave
from replswitch import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.test_flask.conftest import Board, NewApp


@pytest.fixture(params=["with the middleware", "without the middleware"])
def any_board(request: pytest.FixtureRequest) -> Board:
    """The board with ReplSwitch, and without."""
    found: Board = request.getfixturevalue("board" if request.param == "with the middleware" else "bare_board")
    return found


class TestViews:
    def test_r3_decorated_view_functions_have_their_state(self, any_board: Board) -> None:
        app = any_board.app

        @app.route("/exact")
        @use_master
        def exact() -> str:
            return any_board.numbers()

        @app.route("/search", methods=["POST"])
        @use_slave()
        def search() -> str:
            return any_board.numbers()

        visitor = any_board.visitor()
        page = visitor.get("/exact")
        assert (page.text, page.sides) == ("1", ["master"])
        page = visitor.post("/search")
        assert (page.text, page.sides, page.markers) == ("1", ["slave"], [])
        assert any_board.db.state == "master"

    def test_r3_decorated_async_views_have_their_state(self, any_board: Board) -> None:
        @any_board.app.route("/exact")
        @use_master
        async def exact() -> str:
            return any_board.numbers()

        @any_board.app.route("/search", methods=["POST"])
        @use_slave
        async def search() -> str:
            return any_board.numbers()

        assert inspect.iscoroutinefunction(exact)
        visitor = any_board.visitor()
        assert visitor.get("/exact").sides == ["master"]
        assert visitor.post("/search").sides == ["slave"]

    def test_r3_decorated_class_based_views_have_their_state(self, any_board: Board) -> None:
        class Whole(MethodView):
            decorators = [use_master]  # noqa: RUF012 - as Flask's manual has it

            def get(self) -> str:
                return any_board.numbers()

        class Single(MethodView):
            def get(self) -> str:
                return any_board.numbers()

            @use_slave
            def post(self) -> str:
                return any_board.numbers()

            @use_slave
            async def put(self) -> str:
                return any_board.numbers()

        class Plain(View):
            methods = ["POST"]  # noqa: RUF012 - as Flask's manual has it
            init_every_request = False
            decorators = [use_slave()]  # noqa: RUF012 - as Flask's manual has it

            def dispatch_request(self) -> str:
                return any_board.numbers()

        any_board.app.add_url_rule("/whole", view_func=Whole.as_view("whole"))
        any_board.app.add_url_rule("/single", view_func=Single.as_view("single"))
        any_board.app.add_url_rule("/plain", view_func=Plain.as_view("plain"))
        around: Any = Single.as_view("around")
        any_board.app.add_url_rule("/around", view_func=use_slave(around))
        visitor = any_board.visitor()
        assert visitor.get("/whole").sides == ["master"]
        assert visitor.post("/single").sides == ["slave"]
        assert visitor.client.put("/single").headers["Replswitch"].startswith("slave")
        assert visitor.post("/plain").sides == ["slave"]
        assert visitor.get("/around").sides == ["slave"]

    def test_m1_a_write_of_a_decorated_view_is_seen_by_the_next_page(self, any_board: Board) -> None:
        @any_board.app.route("/write/<int:n>", methods=["POST"])
        @use_slave
        def write(n: int) -> str:
            any_board.write(n)
            return any_board.numbers()

        any_board.app.add_url_rule("/read", "read", use_slave(any_board.numbers))
        any_board.pair.stop_slave()
        visitor = any_board.visitor()
        page = visitor.post("/write/2")
        assert (page.text, page.sides, len(page.markers)) == ("1 2", ["slave", "master"], 1)
        page = visitor.get("/read")
        assert (page.text, page.sides, page.markers) == ("1 2", ["master"], [])
        assert any_board.visitor().get("/read").text == "1"

    def test_m1_a_decorated_view_that_writes_and_fails_is_marked(self, any_board: Board) -> None:
        any_board.app.config.update(TESTING=False)

        @any_board.app.route("/fail", methods=["POST"])
        @use_master
        def fail() -> str:
            any_board.write(2)
            raise RuntimeError("behind the write")

        @any_board.app.route("/missing", methods=["POST"])
        @use_master
        async def missing() -> str:
            any_board.write(3)
            abort(404)

        any_board.app.add_url_rule("/read", "read", use_slave(any_board.numbers))
        any_board.pair.stop_slave()
        for path, status in (("/fail", 500), ("/missing", 404)):
            visitor = any_board.visitor()
            page = visitor.post(path)
            assert (page.status, len(page.markers)) == (status, 1)
            assert visitor.get("/read").text == any_board.on("master")

    def test_r3_a_decorated_view_called_by_a_view_restores_its_state(self, any_board: Board) -> None:
        @use_master
        def inner() -> str:
            return any_board.db.state

        @any_board.app.route("/outer", methods=["POST"])
        @use_slave
        def outer() -> str:
            before, within, after = any_board.db.state, inner(), any_board.db.state
            return f"{before} {within} {after}"

        assert any_board.visitor().post("/outer").text == "slave master slave"

    def test_s9_a_decorated_view_streams_in_its_state(self, any_board: Board) -> None:
        def body() -> Iterator[str]:
            yield f"{any_board.db.state} "
            yield any_board.numbers()

        any_board.app.add_url_rule(
            "/stream", "stream", use_slave(lambda: Response(stream_with_context(body()))), methods=["POST"]
        )
        any_board.app.add_url_rule("/generator", "generator", use_slave(body), methods=["POST"])
        any_board.pair.stop_slave()
        any_board.write(2)
        assert any_board.visitor().post("/stream").text == "slave 1"
        assert any_board.visitor().post("/generator").text == "slave 1"

    def test_m7_a_decorated_view_that_streams_and_writes_is_marked(self, any_board: Board) -> None:
        @use_slave
        def write() -> Iterator[str]:
            any_board.write(2)
            yield any_board.db.state

        class Page(MethodView):
            @use_slave
            def post(self) -> Iterator[str]:
                yield f"{any_board.db.state} {any_board.numbers()}"

        any_board.app.add_url_rule("/write", "write", write, methods=["POST"])
        any_board.app.add_url_rule("/page", view_func=Page.as_view("page"))
        any_board.pair.stop_slave()
        visitor = any_board.visitor()
        assert visitor.post("/page").text == "slave 1"
        assert visitor.post("/write").text == "slave"
        assert any_board.on("master") == "1 2"

    def test_a_decorated_view_can_send_a_file(self, any_board: Board) -> None:
        @any_board.app.route("/file")
        @use_master
        def file() -> Response:
            response = Response(Path(__file__).open("rb"), direct_passthrough=True)  # noqa: SIM115 - Flask closes it
            whole.append(response.response)
            return response

        @any_board.app.after_request
        def after(response: Response) -> Response:
            kept.append(response.response)
            return response

        whole: list[Any] = []
        kept: list[Any] = []
        response = any_board.visitor().client.get("/file", buffered=True)
        assert response.data.startswith(b'"""``use_master`` and ``use_slave`` on views')
        assert kept == whole


class TestOutsideViews:
    def test_a_decorated_function_outside_a_request_has_its_state(self, board: Board) -> None:
        assert use_slave(board.numbers)() == "1"

        @use_slave
        def state() -> str:
            return board.db.state

        assert (state(), board.db.state) == ("slave", "master")
        with board.app.test_request_context(), use_slave():
            assert board.db.state == "slave"
        with board.app.app_context():
            assert state() == "slave"

    def test_a_decorated_generator_that_is_no_view_accepts_send(self, any_board: Board) -> None:
        board = any_board

        @use_slave
        def echo() -> Iterator[Any]:
            received = None
            while received != "stop":
                received = yield f"{board.db.state} {received}"

        @board.app.route("/echo")
        @use_master
        def view() -> str:
            generator: Any = echo()
            return f"{next(generator)} {generator.send('x')} {board.db.state}"

        assert board.visitor().get("/echo").text == "slave None slave x master"

    @pytest.mark.parametrize(
        "decorate", [use_master, use_slave, use_master()], ids=["use_master", "use_slave", "use_master()"]
    )
    def test_decorating_a_class_is_an_error(self, decorate: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"decorators = \[use_(master|slave)\]"):

            @decorate
            class Page(MethodView):
                pass

    def test_decorating_anything_but_a_function_is_an_error(self) -> None:
        wrong: Any = "/path"
        with pytest.raises(ConfigurationError, match="use_slave decorates functions"):
            use_slave(wrong)


class TestWithoutTheMiddleware:
    def test_r3_two_decorated_views_in_a_request_share_its_scope(self, bare_board: Board) -> None:
        @bare_board.app.route("/both", methods=["POST"])
        def both() -> str:
            use_master(bare_board.write)(2)
            return use_slave(bare_board.numbers)()

        bare_board.pair.stop_slave()
        page = bare_board.visitor().post("/both")
        assert (page.text, set(page.sides), len(page.markers)) == ("1 2", {"master"}, 1)

    def test_r3_a_decorated_view_uses_the_options_and_the_secret_of_the_configuration(self, bare_board: Board) -> None:
        bare_board.app.config.update(
            REPLSWITCH_COOKIE_NAME="wrote", REPLSWITCH_COOKIE_SAMESITE="Strict", REPLSWITCH_HEADER=True
        )

        @bare_board.app.route("/write")
        @use_master
        def write() -> str:
            bare_board.write(2)
            return "done"

        page = bare_board.visitor().get("/write", base_url="https://shop.example")
        (cookie,) = page.response.headers.getlist("Set-Cookie")
        assert cookie.startswith("wrote")
        assert cookie.partition("=")[2].partition(";")[0] == page.response.headers["Replswitch-Marker"]
        for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"):
            assert attribute in cookie

    @pytest.mark.parametrize(
        ("config", "told"), [({"SECRET_KEY": None}, "no secret key"), ({"REPLSWITCH_COOKY": 1}, '"COOKY"')]
    )
    def test_a_decorated_view_reports_a_wrong_configuration(
        self, new_app: NewApp, config: dict[str, Any], told: str
    ) -> None:
        app = new_app(**config)
        app.add_url_rule("/", "page", use_master(lambda: "page"))
        with pytest.raises(ConfigurationError, match=told):
            app.test_client().get("/")

    def test_r3_an_undecorated_view_without_the_middleware_is_not_switched_or_marked(
        self, bare_board: Board, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        page = bare_board.visitor().get()
        assert (page.text, page.told) == ("1", "")
        assert not bare_board.visitor().post(data={"n": 2}).markers

    def test_a_decorated_view_called_in_a_request_context_without_the_middleware_has_its_state(
        self, board: Board
    ) -> None:
        view = use_slave(lambda: f"{board.db.state} {board.numbers()} {current_app.name}")
        with board.app.test_request_context():
            assert view() == "slave 1 shop"
