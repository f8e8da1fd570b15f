"""What the middleware adds to a GET without a marker, against what WebOb's Request(environ).get_response() adds.

Both wrap the same application, and what the application takes alone is taken off both. Nothing queries a database.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from webob import Request

from cost.ratio import Row, measure, ratio, repeated
from cost.served import ENVIRON, serve
from replswitch import Switch
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ROUNDS = 300

LIMIT = 0.65
"""The limit: the time that the middleware adds, as a part of that of WebOb."""

HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "12")]
COOKIES = ENVIRON | {"HTTP_COOKIE": "session=kq3v0d8n2c5x7z1b; theme=dark; _ga=GA1.1.1234567890.1700000000"}

switch = Switch()


def listed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a list."""
    start_response("200 OK", HEADERS)
    return [b"Hello world!"]


def streamed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer piece by piece."""
    start_response("200 OK", HEADERS)
    yield b"Hello"
    yield b" "
    yield b"world!"


def switched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Ask which side to read from."""
    start_response("200 OK", HEADERS)
    return [b"Hello slave!" if switch.state == "slave" else b"Hello master"]


def webob(application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Let WebOb call the application; the response is not even sent."""
    body: Iterable[bytes] = Request(environ).get_response(application).app_iter
    return body


def compared(name: str, application: WSGIApplication, environ: WSGIEnvironment, limit: float | None = None) -> Row:
    """Hold the middleware against WebOb, both around one application."""
    wrapped = ReplicationMiddleware(application, secret="a secret for the benchmark alone")
    applications: dict[str, WSGIApplication] = {
        "alone": application,
        "ours": wrapped,
        "webob": partial(webob, application),
    }
    sides = {side: repeated(partial(serve, each, environ)) for side, each in applications.items()}
    return ratio(name, measure(sides, ROUNDS), "ours", "webob", floor="alone", limit=limit)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    yield compared("middleware adds / WebOb adds, GET without a marker", listed, ENVIRON, limit=LIMIT)
    yield compared("  the same with other cookies", listed, COOKIES, limit=LIMIT)
    yield compared("  a body made piece by piece (three)", streamed, ENVIRON)
    yield compared("  the application reads switch.state", switched, ENVIRON)
