"""A real server, uvicorn: connections that are kept alive, uploads, clients that disconnect."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.test_asgi.conftest import App, ASGIBoard, Receive, Send, Wrap, respond

from replswitch import Switch
from replswitch.decorators import use_master
from replswitch.state import stack

uvicorn = pytest.importorskip("uvicorn")

Serve = Callable[[App], http.client.HTTPConnection]


@pytest.fixture(params=["h11", "httptools"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serves an application in a thread, and returns a client with one connection."""
    pytest.importorskip(request.param)
    running: list[tuple[Any, threading.Thread, http.client.HTTPConnection]] = []

    def start(app: App) -> http.client.HTTPConnection:
        config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical", http=request.param)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        running.append((server, thread, client))
        return client

    yield start
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join()


def send(client: http.client.HTTPConnection, method: str, body: bytes = b"", cookie: str = "") -> tuple[bytes, str]:
    """Send a request, and return the body of its response and its cookie."""
    client.request(method, "/", body, {"Cookie": cookie} if cookie else {})
    answer = client.getresponse()
    return answer.read(), (answer.getheader("Set-Cookie") or "").partition(";")[0]


def depth() -> int:
    """The number of instructions on the running stack."""
    number, frame = 0, stack()
    while frame is not None:
        number, frame = number + 1, frame.parent
    return number


def test_s3_uploads_on_one_connection_leave_nothing_for_the_next_request(wrap: Wrap, serve: Serve) -> None:
    switch, depths = Switch(), []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message.get("more_body", False)
            await asyncio.sleep(0)  # so that the server stops reading, and goes on in the context of receive()
        switch.use_master()
        use_master().__enter__()
        await respond(send, str(size).encode())

    wrapped = wrap(app)

    async def watched(scope: Any, receive: Receive, send: Send) -> None:
        depths.append(depth())
        await wrapped(scope, receive, send)

    client = serve(watched)
    for _ in range(5):
        assert send(client, "POST", b"x" * 3_000_000)[0] == b"3000000"
        assert send(client, "GET")[0] == b"0"
    assert depths == [0] * 10


@pytest.mark.parametrize("served", ["sqlite"], indirect=True)
def test_m1_two_visitors_on_one_connection_get_only_their_own_markers(board: ASGIBoard, serve: Serve) -> None:
    """As behind a proxy that keeps its connections."""
    client = serve(board.app)
    board.pair.stop_slave()
    client.request("POST", "/?n=2&status=201", b"x" * 3_000_000)
    answer = client.getresponse()
    answer.read()
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    assert send(client, "GET") == (b"1", "")
    assert send(client, "GET", cookie=cookie) == (b"1 2", "")
    assert send(client, "GET") == (b"1", "")


def test_s3_a_client_that_disconnects_leaves_nothing_for_the_next_request(wrap: Wrap, serve: Serve) -> None:
    switch, cleaned, is_over = Switch(), [], threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            return await respond(send, switch.state.encode())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            cleaned.append(switch.state)
            is_over.set()
        return None

    client = serve(wrap(app))
    client.request("POST", "/")
    with closing(client.getresponse()) as answer:
        assert answer.read(3) == b"one"
    client.close()
    assert is_over.wait(30)
    assert cleaned == ["master"]
    assert send(client, "GET")[0] == b"slave"
