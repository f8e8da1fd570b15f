"""Fixtures for the ASGI middleware: a strict server, a browser, and a message board on a real pair."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from tests.test_wsgi.conftest import SECRET, Answer, Board, empty_table

import replswitch
from replswitch.asgi import ReplicationMiddleware
from replswitch.request.marker import Marker, MarkerSigner
from replswitch.state import stack

if TYPE_CHECKING:
    from tests.conftest import Served

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
Wrap = Callable[..., App]

PLAIN = (b"content-type", b"text/plain")


def required(module: str) -> Any:
    """Import a module that not every installation has, or skip the tests; where CI is set, fail instead."""
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        return importlib.import_module(module)
    return pytest.importorskip(module)


def http_scope(
    method: str = "GET",
    path: str = "/",
    query: str = "",
    *,
    cookie: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    **extra: Any,
) -> dict[str, Any]:
    """A connection scope as a server makes it."""
    sent = headers if cookie is None else (*headers, ("cookie", cookie))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    } | extra


class Exchange(Answer):
    """One request and its response as a server sees them. As strict as ASGI 3 is.

    Whenever the application calls the server, it looks whether the stack is the server's own.

    Attributes:
        messages: what the application sent, in this order.
        gone: set it when the client disconnects.
        started: is set when the headers have reached the client.
    """

    def __init__(self, app: App, scope: Any, body: bytes = b"") -> None:
        self.scope = scope
        self.messages: list[Message] = []
        self.gone, self.started, self.complete = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._app = app
        self._body: bytes | None = body

    async def run(self) -> Exchange:
        """Call the application in this task."""
        self._stack = stack()
        try:
            await self._app(self.scope, self._receive, self._send)
        finally:
            self._look()
        assert self.complete.is_set(), "the application returned without a whole response"
        return self

    def _look(self) -> None:
        assert stack() is self._stack, "the state was held while the server worked"

    async def _receive(self) -> Message:
        self._look()
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        both = [asyncio.ensure_future(each.wait()) for each in (self.gone, self.complete)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
        self._look()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._look()
        await asyncio.sleep(0)
        self._look()
        kind = message["type"]
        if kind == "http.response.start":
            assert not self.started.is_set(), "the headers were given to the server twice"
            assert all(isinstance(part, bytes) for header in message["headers"] for part in header)
            self.started.set()
        elif kind in {"http.response.body", "http.response.pathsend"}:
            assert self.started.is_set(), "a piece of the body came before the headers"
            assert not self.complete.is_set()
            if not message.get("more_body"):
                self.complete.set()
        self.messages.append(message)

    @property
    def start(self) -> Message:
        (found,) = (each for each in self.messages if each["type"] == "http.response.start")
        return found

    @property
    def code(self) -> int:
        return int(self.start["status"])

    @property
    def pieces(self) -> list[bytes]:
        return [each.get("body", b"") for each in self.messages if each["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def values(self, name: str) -> list[str]:
        """All headers of one name."""
        return [value.decode() for key, value in self.start["headers"] if key.decode().lower() == name.lower()]


class Browser:
    """A visitor: sends requests and keeps cookies."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.jar: dict[str, str] = {}

    @property
    def cookie(self) -> str | None:
        """The Cookie header of the next request."""
        return "; ".join(f"{name}={value}" for name, value in self.jar.items()) or None

    def keep(self, *cookies: str) -> None:
        """Keep the cookies of a response."""
        for header in cookies:
            self.jar |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}

    async def asend(self, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        body = extra.pop("body", b"")
        answer = await Exchange(self.app, http_scope(method, query=query, cookie=self.cookie, **extra), body).run()
        self.keep(*answer.cookies)
        return answer

    def send(self, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        return asyncio.run(self.asend(method, query, **extra))


async def respond(send: Send, *pieces: bytes, status: int = 200, headers: list[Any] | None = None) -> None:
    """Send a whole response."""
    await send({"type": "http.response.start", "status": status, "headers": [PLAIN] if headers is None else headers})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1] if pieces else b""})


class ASGIBoard(Board):
    """A message board: a POST writes the number ``?n=…`` and answers ``?status=…``, a GET shows all numbers."""

    def __init__(self, served: Served, db: replswitch.Connection) -> None:
        super().__init__(served, db)
        self.app = self.within(self.answer)

    async def answer(self, scope: Any, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode())
        if scope["method"] != "POST":
            await respond(send, self.page())
            return
        self.write(int(query["n"][0]))
        await respond(send, b"written", status=int(query.get("status", ["302"])[0]))

    def page(self) -> bytes:
        return " ".join(map(str, self.numbers())).encode()

    def within(self, app: App, **options: Any) -> App:
        """Another application inside the middleware."""
        return ReplicationMiddleware(app, SECRET, **({"debug_header": True} | options))


@pytest.fixture
def board(served: Served) -> Iterator[ASGIBoard]:
    """A board with only the number 1 on each kind of pair, with each of its drivers, without a lag."""
    pair, driver = served
    empty_table(pair)
    with replswitch.connect(master=pair.master, slaves=pair.slaves, driver=driver) as db:
        yield ASGIBoard(served, db)
        if driver == "sqlite3":
            # An error, its task and a cursor in its frames form a reference cycle. Once the pool is closed, nothing
            # else refers to the cursor's connection. From Python 3.13 on, sqlite3 warns of it when it is collected.
            gc.collect()


@pytest.fixture
def wrap() -> Wrap:
    """Puts the middleware, with the debug header and the tests' secret, around an application."""

    def put(app: App, secret: Any = SECRET, **options: Any) -> App:
        return ReplicationMiddleware(app, secret, **({"debug_header": True} | options))

    return put


@pytest.fixture
def token() -> Callable[..., str]:
    """Makes a signed marker of an age in seconds."""

    def sign(age: float = 0) -> str:
        return MarkerSigner(SECRET).write(Marker(time.time() - age))

    return sign
