"""Real servers with real frameworks: kept connections, uploads, pipelining, disconnects, error pages, websockets."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.cookies import SimpleCookie
from typing import Any

import pytest
from tests.test_asgi.conftest import required
from tests.test_wsgi.conftest import empty_table

from replswitch.testing import SQLitePair

for module in ("uvicorn", "h11", "httptools", "hypercorn", "daphne", "websockets", "fastapi", "litestar", "quart"):
    required(module)
from websockets.sync.client import connect  # noqa: E402 - not without the package

COMMANDS = {
    "uvicorn-h11": "uvicorn --port {} --http h11 --log-level critical",
    "uvicorn-httptools": "uvicorn --port {} --http httptools --log-level critical",
    "hypercorn": "hypercorn --bind 127.0.0.1:{} --log-level critical",
    "daphne": "daphne --port {} --verbosity 0",
}
numbers = itertools.count(2)

Serve = Callable[[str], int]


@pytest.fixture(scope="module")
def pair_of_module() -> Iterator[SQLitePair]:
    with SQLitePair() as pair:
        empty_table(pair)
        yield pair


@pytest.fixture
def pair(pair_of_module: SQLitePair) -> Iterator[SQLitePair]:
    """A pair whose slave lags until the end of the test."""
    pair_of_module.wait_caught_up()
    pair_of_module.stop_slave()
    yield pair_of_module
    pair_of_module.start_slave()


@pytest.fixture(scope="module")
def serve(pair_of_module: SQLitePair) -> Iterator[Serve]:
    """Starts a server, once in the module, and returns its port."""
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    settings = json.dumps({"master": pair_of_module.master, "slaves": pair_of_module.slaves, "driver": "sqlite3"})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "REPLSWITCH_TESTS_PAIR": settings}

    def start(name: str) -> int:
        if name not in running:
            with closing(socket.create_server(("127.0.0.1", 0))) as probe:
                port = int(probe.getsockname()[1])
            command = [sys.executable, "-m", *COMMANDS[name].format(port).split(), "tests.test_asgi.served_app:app"]
            running[name] = subprocess.Popen(command, env=environment), port
        process, port = running[name]
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.02)
            else:
                return port
        raise AssertionError(f"{name} does not serve")

    yield start
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        process.wait(30)


class Visitor:
    """A client with cookies and one connection, which other visitors may share.

    Attributes:
        depths: how deep the stack was at the start of each request.
    """

    def __init__(self, port: int, framework: str, connection: http.client.HTTPConnection | None = None) -> None:
        self.framework = framework
        self.jar: dict[str, str] = {}
        self.depths: list[str] = []
        self.connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def keep(self, *cookies: str) -> None:
        for header in cookies:
            self.jar |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}

    def send(self, method: str, path: str = "", body: bytes | None = None) -> tuple[int, Any]:
        """Send a request, and return the status and the value in the body, which is JSON."""
        self.connection.request(method, f"/{self.framework}/{path}", body, {"Cookie": self.cookie})
        with self.connection.getresponse() as answer:
            text = answer.read()
            self.keep(*(answer.headers.get_all("Set-Cookie") or ()))
            self.depths.append(answer.headers["x-depth"])
        if answer.status == 500:
            self.connection.close()  # as some servers do
        return answer.status, json.loads(text) if answer.status == 200 else None

    def close(self) -> None:
        self.connection.close()


ON_EACH = [*((server, "fastapi") for server in COMMANDS), ("uvicorn-h11", "litestar"), ("uvicorn-httptools", "quart")]
EACH = pytest.mark.parametrize(("server", "framework"), ON_EACH)
SERVERS = pytest.mark.parametrize("server", COMMANDS)


@EACH
def test_m1_the_next_get_sees_the_write(pair: SQLitePair, serve: Serve, server: str, framework: str) -> None:
    port = serve(server)
    for path, status in (("", 201), ("redirect", 303), ("fail", 500)):
        number = next(numbers)
        with closing(Visitor(port, framework)) as visitor, closing(Visitor(port, framework)) as other:
            assert visitor.send("GET") == other.send("GET")
            assert visitor.send("POST", f"{path}?n={number}")[0] == status
            assert number in visitor.send("GET")[1], f"stale after {path or 'a write'}"
            assert number not in other.send("GET")[1], "the marker reached another visitor"


@EACH
def test_s3_a_request_leaves_no_state_and_no_marker_for_the_next_one_on_its_connection(
    pair: SQLitePair, serve: Serve, server: str, framework: str
) -> None:
    port, number = serve(server), next(numbers)
    with closing(Visitor(port, framework)) as visitor:
        other = Visitor(port, framework, visitor.connection)
        for _ in range(3):
            assert visitor.send("POST", "upload", b"x" * 3_000_000) == (200, 3_000_000)
            assert number not in other.send("GET")[1]
        visitor.send("POST", f"?n={number}")
        for _ in range(2):
            assert number in visitor.send("GET")[1]
            assert number not in other.send("GET")[1], "the marker reached another visitor of the connection"
        assert set(visitor.depths + other.depths) == {"0"}


@SERVERS
def test_s3_a_pipelined_request_leaves_no_state_and_no_marker_for_the_next_one(
    pair: SQLitePair, serve: Serve, server: str
) -> None:
    upload = b"POST /fastapi/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz"
    last = b"GET /fastapi/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", serve(server)), timeout=30)) as client:
        client.sendall(upload * 3 + last)
        got = b""
        while piece := client.recv(65536):
            got += piece
    assert got.lower().count(b"x-depth: 0\r\n") == 4


@SERVERS
def test_s9_a_client_that_disconnects_leaves_no_state_for_the_next_request(
    pair: SQLitePair, serve: Serve, server: str
) -> None:
    port = serve(server)
    with closing(Visitor(port, "fastapi")) as visitor:
        before = visitor.send("GET", "cleaned")[1]
        with closing(Visitor(port, "fastapi")) as leaving:
            leaving.connection.request("POST", "/fastapi/stream")
            answer = leaving.connection.getresponse()
            assert answer.read(7) == b"master "
            answer.close()
        until = time.monotonic() + 30
        while (cleaned := visitor.send("GET", "cleaned")[1]) == before and time.monotonic() < until:
            time.sleep(0.02)
        assert cleaned == [*before, "master"]
        assert set(visitor.depths) == {"0"}


@EACH
def test_m1_a_websocket_sees_what_its_visitor_writes(
    pair: SQLitePair, serve: Serve, server: str, framework: str
) -> None:
    port, (first, second, third) = serve(server), itertools.islice(numbers, 3)
    address = f"ws://127.0.0.1:{port}/{framework}/socket"
    with closing(Visitor(port, framework)) as visitor:
        visitor.send("POST", f"?n={first}")
        with connect(address, additional_headers={"Cookie": visitor.cookie}) as websocket:
            websocket.send("read")
            assert str(first) in str(websocket.recv(30)).split()
            for number in (second, third):
                websocket.send(f"write {number}")
                assert str(number) in str(websocket.recv(30)).split()
    with connect(address) as websocket:
        websocket.send("read")
        assert str(first) not in str(websocket.recv(30)).split(), "the marker reached another visitor"


@pytest.mark.parametrize(("server", "framework"), [each for each in ON_EACH if "daphne" not in each])
def test_m1_a_write_before_a_websocket_is_accepted_marks_the_handshake(
    pair: SQLitePair, serve: Serve, server: str, framework: str
) -> None:
    """Daphne cannot send headers with it."""
    port, number = serve(server), next(numbers)
    with connect(f"ws://127.0.0.1:{port}/{framework}/socket?n={number}") as websocket:
        assert websocket.response is not None
        cookies = websocket.response.headers.get_all("Set-Cookie")
    with closing(Visitor(port, framework)) as visitor:
        assert number not in visitor.send("GET")[1]
        visitor.keep(*cookies)
        assert number in visitor.send("GET")[1]
