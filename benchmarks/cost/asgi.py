"""What the ASGI middleware adds to a GET without a marker, against what a wrapper that adds one header adds.

Both wrap the same application, and what the application takes alone is taken off both. Nothing queries a database, and
no `send()` waits, so no other task runs in between.
"""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import TYPE_CHECKING, Any

from cost.ratio import Batch, Row, measure, ratio
from replswitch import Switch
from replswitch.asgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Application = Callable[[Any, Any, Any], Awaitable[None]]

ROUNDS = 300

LIMIT = 9
"""The limit for the time that the middleware adds, divided by the time that the wrapper adds."""

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/messages",
    "raw_path": b"/messages",
    "query_string": b"page=2",
    "root_path": "",
    "server": ("127.0.0.1", 80),
    "client": ("127.0.0.1", 54321),
    "headers": [(b"host", b"127.0.0.1"), (b"accept", b"text/html"), (b"user-agent", b"benchmark")],
    "state": {},
    "extensions": {},
}
"""A GET, as uvicorn passes it on."""

BROWSER: dict[str, Any] = SCOPE | {
    "headers": [
        *SCOPE["headers"],
        (b"accept-language", b"en"),
        (b"accept-encoding", b"gzip, deflate, br"),
        (b"connection", b"keep-alive"),
        (b"referer", b"http://127.0.0.1/"),
        (b"cookie", b"session=kq3v0d8n2c5x7z1b; theme=dark; _ga=GA1.1.1234567890.1700000000"),
        (b"sec-fetch-dest", b"document"),
        (b"sec-fetch-mode", b"navigate"),
    ]
}
"""The same with the headers of a browser, which has other cookies."""

HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"12")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b"Hello world!"}
PIECES = [{"type": "http.response.body", "body": piece, "more_body": True} for piece in (b"Hello", b" ", b"world!")]
END = {"type": "http.response.body", "body": b""}

switch = Switch()


async def whole(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a body in one piece."""
    await send(START)
    await send(BODY)


async def streamed(scope: Any, receive: Any, send: Any) -> None:
    """Answer piece by piece."""
    await send(START)
    for piece in PIECES:
        await send(piece)
    await send(END)


async def switched(scope: Any, receive: Any, send: Any) -> None:
    """Ask which side to read from."""
    await send(START)
    await send(BODY if switch.state == "slave" else END)


class WithHeader:
    """Middleware that adds one header to each response.

    Args:
        app: the application.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-frame-options", b"DENY")]}
            await send(message)

        await self.app(scope, receive, add)


async def receive() -> Any:
    """Return the end of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Take a message."""


def requests(application: Application, scope: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Batch:
    """Make a batch of requests, each with a connection scope of its own."""

    async def serve(number: int) -> None:
        for _ in repeat(None, number):
            await application(scope.copy(), receive, send)

    return lambda number: loop.run_until_complete(serve(number))


def compared(name: str, application: Application, scope: dict[str, Any], limit: float | None = None) -> Row:
    """Compare the middleware with the wrapper, both around one application."""
    applications: dict[str, Application] = {
        "alone": application,
        "ours": ReplicationMiddleware(application, secret="a secret for the benchmark alone"),
        "wrapper": WithHeader(application),
    }
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        times = measure({side: requests(each, scope, loop) for side, each in applications.items()}, ROUNDS)
    return ratio(name, times, "ours", "wrapper", floor="alone", limit=limit)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    yield compared("ASGI middleware adds / a wrapper adds, GET without a marker", whole, SCOPE, limit=LIMIT)
    yield compared("  the same with the headers of a browser", whole, BROWSER, limit=LIMIT)
    yield compared("  a body made piece by piece (three)", streamed, SCOPE)
    yield compared("  the application reads switch.state", switched, SCOPE)
