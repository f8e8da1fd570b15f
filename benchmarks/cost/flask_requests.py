"""What ReplSwitch adds to a Flask request without a query, against what WebOb's pass-through adds to it.

Both are put around Flask's answer: the response that a view makes, sent by Flask's own code. What that takes alone is
taken off both. The application itself takes ten times as long as what is compared and would drown it, so whole requests
stand below, for information, and so does what a decorator adds.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response
from webob import Request

from cost.ratio import Row, measure, ratio, repeated
from cost.served import ENVIRON, serve
from cost.wsgi import COOKIES
from flask_replswitch import ReplSwitch, use_slave

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ROUNDS = 300


def application() -> Flask:
    """Make an application with a view that answers at once."""
    app = Flask(__name__, static_folder=None)
    app.config["SECRET_KEY"] = "a secret for the benchmark alone"
    app.add_url_rule("/messages", "messages", lambda: "Hello world!")
    app.add_url_rule("/decorated", "decorated", use_slave(lambda: "Hello world!"))
    return app


def switched() -> Flask:
    """Make the same with ReplSwitch."""
    app = application()
    ReplSwitch(app)
    return app


def webob(wrapped: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Let WebOb call the application, and return its response."""
    response = Request(environ).get_response(wrapped)
    body: Iterable[bytes] = response(environ, start_response)
    return body


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer as Flask does when its view has returned."""
    body: Iterable[bytes] = Response("Hello world!")(environ, start_response)
    return body


def streamed_answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer piece by piece, as Flask does."""
    body: Iterable[bytes] = Response(piece for piece in ("Hello", " ", "world!"))(environ, start_response)
    return body


def around(inner: WSGIApplication) -> WSGIApplication:
    """Wrap a WSGI callable in the layers that ReplSwitch puts around an application."""
    app = Flask(__name__, static_folder=None)
    app.config["SECRET_KEY"] = "a secret for the benchmark alone"
    app.wsgi_app = inner  # type: ignore[method-assign, assignment]  # the way that Flask's manual names
    ReplSwitch(app)
    return app.wsgi_app


def compared(name: str, inner: WSGIApplication, environ: WSGIEnvironment, limit: float | None = None) -> Row:
    """Hold ReplSwitch against WebOb, both around one answer."""
    applications: dict[str, WSGIApplication] = {
        "alone": inner,
        "ours": around(inner),
        "webob": partial(webob, inner),
    }
    sides = {side: repeated(partial(serve, each, environ)) for side, each in applications.items()}
    return ratio(name, measure(sides, ROUNDS), "ours", "webob", floor="alone", limit=limit)


def whole(name: str, ours: Any, against: Any, path: str = "/messages", other: str | None = None) -> Row:
    """Hold a whole request against another."""
    environ = ENVIRON | {"PATH_INFO": path}
    sides = {
        "ours": repeated(partial(serve, ours, environ)),
        "against": repeated(partial(serve, against, ENVIRON | {"PATH_INFO": other or path})),
    }
    return ratio(name, measure(sides, ROUNDS), "ours", "against")


def rows() -> Iterator[Row]:
    """Yield the rows."""
    yield compared("ReplSwitch adds / WebOb adds, a Flask GET", answer, ENVIRON, limit=1)
    yield compared("  the same with other cookies", answer, COOKIES, limit=1)
    yield compared("  a streamed body (three pieces)", streamed_answer, ENVIRON)
    yield whole("a GET with ReplSwitch / the same without", switched(), application())
    yield whole("a GET of two equal applications", application(), application())
    same = switched()
    yield whole("a decorated view / one that is not", same, same, "/decorated", "/messages")
