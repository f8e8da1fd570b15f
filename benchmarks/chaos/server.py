"""The application under chaos, as a process: python -m chaos.server SIDE SETTINGS, with the settings as JSON.

It prints its port, serves until its standard input ends, and logs to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import waitress  # type: ignore[import-untyped]  # it has no types of its own

from chaos.pages import answer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from chaos.pages import Base

THREADS = 12
SECRET = "a secret for the run alone"
REASONS = {200: "OK", 201: "Created", 303: "See Other", 500: "Internal Server Error", 503: "Service Unavailable"}


def values_of(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the values of a request: from its query string, a form or JSON."""
    if environ["REQUEST_METHOD"] == "GET":
        return dict(parse_qsl(environ.get("QUERY_STRING", "")))
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    if environ.get("CONTENT_TYPE") == "application/json":
        values: dict[str, str] = json.loads(body)
        return values
    return dict(parse_qsl(body))


def plain_application(base: Base) -> WSGIApplication:
    """Make a WSGI application of the pages."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answered = answer(base, environ["REQUEST_METHOD"], environ["PATH_INFO"], values_of(environ))
        start_response(f"{answered.status} {REASONS[answered.status]}", answered.headers)
        return [answered.body]

    return application


def serve(application: WSGIApplication) -> None:
    """Serve until standard input ends."""
    server = waitress.create_server(application, host="127.0.0.1", port=0, threads=THREADS)
    threading.Thread(target=server.run, daemon=True).start()
    print(server.effective_port, flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    side, settings = sys.argv[1], json.loads(sys.argv[2])
    logging.basicConfig(format="%(asctime)s %(threadName)s %(name)s %(message)s", level=logging.INFO)
    logging.getLogger("waitress").setLevel(logging.WARNING)
    module: Any = importlib.import_module(f"chaos.on_{side}")
    serve(module.application(settings))
