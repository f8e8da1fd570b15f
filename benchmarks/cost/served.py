"""A WSGI server without a network, to which the benchmarks send their requests."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication, WSGIEnvironment

ENVIRON: WSGIEnvironment = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/messages",
    "QUERY_STRING": "page=2",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "127.0.0.1",
    "HTTP_ACCEPT": "text/html",
    "HTTP_USER_AGENT": "benchmark",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": BytesIO(),
    "wsgi.errors": BytesIO(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}
"""A GET, as a server that listens on a port makes it."""


def write(data: bytes) -> None:
    """Accept the output of an application."""


def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
    """Take the status and the headers."""
    return write


def serve(application: WSGIApplication, environ: WSGIEnvironment) -> None:
    """Serve one request to its end, each time with an environ of its own."""
    body = application(environ.copy(), start_response)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()


def send(application: WSGIApplication, method: str, cookie: str = "") -> str:
    """Serve one request and return the cookie that a browser would send next."""
    cookies = [cookie]

    def answer(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        cookies.extend(value.partition(";")[0] for name, value in headers if name == "Set-Cookie")
        return write

    environ = ENVIRON | {"REQUEST_METHOD": method}
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    body = application(environ, answer)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
    return cookies[-1]
