"""Starlette in the middleware, and the middleware in Starlette's own list: error pages, class-based endpoints."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.test_asgi.conftest import App, ASGIBoard, Browser, Exchange, http_scope, required
from tests.test_asgi.sockets import open_socket
from tests.test_wsgi.conftest import SECRET

from replswitch.asgi import ReplicationMiddleware
from replswitch.decorators import use_master, use_slave

applications, endpoints, exceptions, middleware, responses, routing = (
    required(f"starlette.{name}")
    for name in ("applications", "endpoints", "exceptions", "middleware", "responses", "routing")
)
pytestmark = pytest.mark.parametrize("served", ["sqlite"], indirect=True)

PLACES = pytest.mark.parametrize(
    "place", ["around", "in the list"], ids=["around the application", "in the list of middleware"]
)


def site(board: ASGIBoard, place: str, *others: Any, **options: Any) -> App:
    """A board of Starlette with a page for errors, and the middleware around it or in its list, after the others."""

    async def page(request: Any) -> Any:
        if request.method == "GET":
            return responses.PlainTextResponse(board.page())
        board.write(2)
        if "missing" in request.query_params:
            raise exceptions.HTTPException(404)
        if "fail" in request.query_params:
            raise LookupError
        return responses.PlainTextResponse("written", 201)

    async def refuse(request: Any) -> None:
        raise LookupError

    async def sorry(request: Any, error: Exception) -> Any:
        return responses.PlainTextResponse("Sorry!", 500)

    listed = [middleware.Middleware(ReplicationMiddleware, secret=SECRET, debug_header=True)]
    app: App = applications.Starlette(
        routes=[routing.Route("/", page, methods=["GET", "POST"]), routing.Route("/refuse", refuse)],
        middleware=[*others, *(listed if place == "in the list" else ())],
        exception_handlers={Exception: sorry},
        **options,
    )
    return app if place == "in the list" else board.within(app)


def failing(app: App, *args: str) -> Exchange:
    """The answer to a request whose error the application raises again, for the server to log."""

    async def main() -> Exchange:
        exchange = Exchange(app, http_scope(*args))
        with suppress(LookupError):
            await exchange.run()
        return exchange

    return asyncio.run(main())


@PLACES
@pytest.mark.parametrize(("query", "status"), [("", 201), ("missing", 404)])
def test_m1_the_next_get_sees_the_write(board: ASGIBoard, place: str, query: str, status: int) -> None:
    app = site(board, place)
    browser = Browser(app)
    board.pair.stop_slave()
    answer = browser.send("POST", query)
    assert (answer.code, len(answer.cookies)) == (status, 1)
    assert browser.send().body == b"1 2"
    assert Browser(app).send().body == b"1"


@pytest.mark.parametrize("debug", [False, True])
def test_m1_an_error_page_of_starlette_is_marked(board: ASGIBoard, debug: bool) -> None:
    answer = failing(site(board, "around", debug=debug), "POST", "/", "fail")
    assert (answer.code, len(answer.cookies)) == (500, 1)
    assert answer.body.startswith(b"Traceback") if debug else answer.body == b"Sorry!"


def test_m1_in_the_list_of_middleware_an_error_after_a_write_gets_a_plain_error_page_with_a_marker(
    board: ASGIBoard,
) -> None:
    app = site(board, "in the list")
    answer = failing(app, "POST", "/", "fail")
    assert (answer.code, answer.body, len(answer.cookies)) == (500, b"Internal Server Error", 1)
    answer = failing(app, "GET", "/refuse")
    assert (answer.code, answer.body, answer.cookies) == (500, b"Sorry!", [])


@pytest.mark.parametrize(
    ("place", "side", "markers"), [("around", "slave", 1), ("in the list", "master", 0)], ids=["inside", "outside"]
)
def test_m1_middleware_of_the_application_is_switched_and_marked_only_inside_replication_middleware(
    board: ASGIBoard, place: str, side: str, markers: int
) -> None:
    states: list[str] = []

    def writing(app: App) -> App:
        async def write(scope: Any, receive: Any, send: Any) -> None:
            states.append(board.db.state)
            if scope["method"] == "POST":
                board.write(3)
            await app(scope, receive, send)

        return write

    browser = Browser(site(board, place, middleware.Middleware(writing)))
    browser.send()
    assert states == [side]
    answer = browser.send("POST", path="/missing")
    assert (answer.code, len(answer.cookies)) == (404, markers)


def test_r3_methods_of_an_endpoint_class_are_decorated(board: ASGIBoard) -> None:
    class Stock(endpoints.HTTPEndpoint):  # type: ignore[name-defined, misc]  # it is loaded by name
        @use_master
        async def get(self, request: Any) -> Any:
            return responses.PlainTextResponse(board.db.state)

        @use_slave
        def post(self, request: Any) -> Any:
            return responses.PlainTextResponse(board.db.state)

    app = board.within(applications.Starlette(routes=[routing.Route("/", Stock)]))
    assert Browser(app).send().body == b"master"
    assert Browser(app).send("POST").body == b"slave"


def test_an_endpoint_class_of_websockets_reads_its_own_write_in_the_next_message(board: ASGIBoard) -> None:
    class Socket(endpoints.WebSocketEndpoint):  # type: ignore[name-defined, misc]  # it is loaded by name
        encoding = "text"

        async def on_receive(self, websocket: Any, data: Any) -> None:
            if data == "write":
                board.write(2)
            await websocket.send_text(self.shown())

        @use_slave
        def shown(self) -> str:
            return board.page().decode()

    async def main() -> None:
        board.pair.stop_slave()
        app = board.within(applications.Starlette(routes=[routing.WebSocketRoute("/", Socket)]))
        async with open_socket(app) as socket, open_socket(app) as other:
            assert await socket.ask("read") == "1"
            assert await socket.ask("write") == "1 2"
            assert await socket.ask("read") == "1 2"
            assert await other.ask("read") == "1"

    asyncio.run(main())
