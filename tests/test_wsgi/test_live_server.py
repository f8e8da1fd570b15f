"""The middleware under a real server, with real clients in parallel, on a pair that really lags."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from waitress import wasyncore  # type: ignore[import-untyped]  # waitress has no types
from waitress.server import create_server  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Board

CLIENTS = 8
LASTS = 2.0
"""Seconds. The slave lags for longer than a visitor takes from a write to the next page."""


@contextmanager
def served(application: WSGIApplication) -> Iterator[int]:
    """Serve an application on a free port while the block runs."""
    sockets: dict[int, Any] = {}
    server = create_server(application, map=sockets, host="127.0.0.1", port=0, threads=CLIENTS)
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.is_set():
            wasyncore.loop(timeout=0.05, map=sockets, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield int(server.effective_port)
    finally:
        stopped.set()
        thread.join()


class Client(threading.Thread):
    """A visitor: in turn reads as a stranger, writes a number, follows the redirect, and reads again.

    Attributes:
        plain: which side has served each page that was asked for without a marker.
        missed: pages that did not show an own write.
        lagged: whether a page without a marker has lacked an earlier write of the visitor.
        pages: how many pages were asked for after an own write.
        error: what went wrong.
    """

    def __init__(self, port: int, numbers: Iterator[int], until: float) -> None:
        super().__init__()
        self.port, self.numbers, self.until = port, numbers, until
        self.plain: list[str] = []
        self.missed: list[str] = []
        self.written: set[str] = set()
        self.lagged = False
        self.pages = 0
        self.error: Exception | None = None
        self.jar: dict[str, str] = {}

    def run(self) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
                while time.monotonic() < self.until or self.pages <= 4:
                    self.visit(connection)
        except Exception as error:  # noqa: BLE001 - the test reports it
            self.error = error

    def visit(self, connection: http.client.HTTPConnection) -> None:
        self.jar.clear()
        side, body = self.ask(connection, "GET", "/")
        self.plain.append(side)
        self.lagged = self.lagged or not self.written <= set(body.split())
        written = []
        for _ in range(2):
            written.append(str(next(self.numbers)))
            self.ask(connection, "POST", f"/?n={written[-1]}")
            for path in ("/", "/?stream=1"):
                side, body = self.ask(connection, "GET", path)
                self.pages += 1
                if not set(written) <= set(body.split()):
                    self.missed.append(f"{written} not on {path} from the {side}")
        self.written.update(written)

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str) -> tuple[str, str]:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == (302 if method == "POST" else 200), body
        for header in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = header.partition(";")[0].partition("=")
            self.jar[name] = value
        return (answer.headers["Replswitch"] or "").partition(";")[0], body


def check_visits(port: int) -> None:
    """Let visitors write and read for a while. None of them misses a write of their own."""
    numbers = itertools.count(2)
    until = time.monotonic() + LASTS
    clients = [Client(port, numbers, until) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [client.error for client in clients] == [None] * CLIENTS
    assert [client.missed for client in clients] == [[]] * CLIENTS
    assert {side for client in clients for side in client.plain} == {"slave"}
    assert any(client.lagged for client in clients), "the slave did not lag, so nothing was tested"


@pytest.mark.parametrize(
    "served", ["mariadb", "mysql-mysqlclient", "postgresql"], indirect=True
)  # each server and driver once
def test_m1_parallel_clients_of_a_live_server_miss_no_own_write(board: Board) -> None:
    board.pair.lag = 1

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "stream" not in environ["QUERY_STRING"]:
            return board.serve(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (f"{number} ".encode() for number in board.numbers())

    with served(board.behind(application)) as port:
        check_visits(port)
