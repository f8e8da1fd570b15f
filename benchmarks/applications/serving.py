"""The common part of the processes of the applications: their input, and how they serve.

Such a process reads one line of JSON from its standard input, prints its port, and serves until that input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

from applications.browser import ERROR

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: The secret key of the applications.
SECRET: Final = "a secret for the benchmark alone"

#: Requests that are worked on at the same time.
THREADS: Final = 8

#: The number of characters of an error in the header.
TOLD: Final = 120


class _Raised(threading.local):
    """The error of the request of this thread."""

    error = ""


_raised = _Raised()


def note(*_: Any, **__: Any) -> None:
    """Note the exception that is being handled, if it is the request's first; for Django's and Flask's signals."""
    if _raised.error:
        return  # what an error page raises in turn
    error = sys.exc_info()[1]
    told = f"{type(error).__name__}: {error}".partition("\n")[0]
    _raised.error = told[:TOLD].encode("latin-1", "replace").decode("latin-1")


def given() -> dict[str, Any]:
    """Read the input of the process."""
    wanted: dict[str, Any] = json.loads(sys.stdin.readline())
    return wanted


def serve(application: WSGIApplication) -> None:
    """Serve until standard input ends."""
    # It has no types of its own, and those who import this module need not have it.
    from waitress.server import create_server  # type: ignore[import-untyped]  # noqa: PLC0415 - see above

    def telling(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _raised.error = ""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, (ERROR, _raised.error)] if _raised.error else headers, *rest)

        try:
            return application(environ, start)
        except Exception as error:  # noqa: BLE001 - as any server does; an error page may fail as well
            traceback.print_exception(error)
            note()
            start("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"Internal Server Error"]

    server = create_server(telling, host="127.0.0.1", port=0, threads=THREADS)
    print(json.dumps({"port": server.effective_port}), flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.run()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)  # without waiting for the threads
