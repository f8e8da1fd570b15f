"""The visitors of `consistency.command`: browsers that write something and then keep reading.

Each has the cookies that a browser would have: a request carries what is in the jar when it is sent, and a response
changes the jar when it arrives, whatever else is on its way.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from urllib.request import Request

from consistency.ledger import Read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consistency.ledger import Ledger

#: Seconds between two GETs of a visitor.
EVERY: Final = 0.1

#: How many XHRs a page sends at once.
XHRS: Final = 4

#: Seconds after which a request without an answer has failed.
TIMEOUT: Final = 20


class Kind(Enum):
    """The write of a visitor, before the reads."""

    FORM = "a form, answered with a redirect"
    JSON = "a POST answered with JSON (200 and 201)"
    XHR = f"a form, and a page that sends {XHRS} XHRs at once"
    DOUBLE = "two POSTs at once, answered with JSON"


class WrongAnswerError(Exception):
    """An answer that no application of ours gives."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a visitor goes.

    Attributes:
        port: of 127.0.0.1.
        servers: the ids of the database servers (``@@server_id``), and their roles.
    """

    port: int
    servers: Mapping[int, str]


class Visitor:
    """One browser.

    Args:
        site: where it goes.
        ledger: records its reads.
        number: whose rows it reads and writes.
        kind: of its write.
    """

    def __init__(self, site: Site, ledger: Ledger, number: int, kind: Kind) -> None:
        self.number = number
        self.kind = kind
        self._site = site
        self._ledger = ledger
        self._jar = CookieJar()
        self._mine = threading.local()  # a connection for each request that may be under way at the same time
        self._connections: list[http.client.HTTPConnection] = []

    def visit(self, seconds: float) -> None:
        """Write, and then send a GET every 100 ms, for so many seconds since the writing began."""
        began = time.monotonic()
        try:
            with ThreadPoolExecutor(XHRS) as pool:
                self._begin(partial(_together, pool))
            due = time.monotonic()
            while due < began + seconds:
                time.sleep(max(0.0, due - time.monotonic()))
                self._attempt(self.read)
                due = max(due + EVERY, time.monotonic())
        except Exception as error:  # noqa: BLE001 - the ledger reports it
            self._ledger.failed(self.number, f"{type(error).__name__}: {error}")
        finally:
            for connection in self._connections:
                connection.close()

    def _begin(self, together: Callable[..., None]) -> None:
        write = partial(self._attempt, self.write)
        read = partial(self._attempt, self.read)
        if self.kind is Kind.JSON:
            write(1, 200 + self.number % 2)
        elif self.kind is Kind.DOUBLE:
            together(partial(write, 1, 201), partial(write, 2, 201))
        else:
            write(1, 303)
        if self.kind is Kind.XHR:
            together(*[read] * XHRS)

    def write(self, number: int, status: int) -> None:
        """Send a POST, and go where its answer leads."""
        query = urlencode({"visitor": self.number, "number": number, "status": status})
        response, _ = self._send("POST", f"/?{query}", status)
        self._ledger.wrote(self.number, number, time.monotonic())
        if status == http.client.SEE_OTHER:
            self.read(response.headers["Location"])

    def read(self, path: str | None = None) -> None:
        """Send a GET, and record its rows."""
        sent = time.monotonic()
        _, body = self._send("GET", path or f"/?visitor={self.number}", http.client.OK)
        answer = json.loads(body)
        server = self._site.servers[answer["server"]]
        self._ledger.read(Read(self.number, sent, frozenset(answer["numbers"]), server))

    def _attempt(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except (OSError, http.client.HTTPException, WrongAnswerError, ValueError, KeyError) as error:
            self._ledger.failed(self.number, f"{type(error).__name__}: {error}")
            self._connection().close()  # and it opens itself again

    def _send(self, method: str, path: str, status: int) -> tuple[http.client.HTTPResponse, bytes]:
        request = Request(f"http://127.0.0.1:{self._site.port}{path}", method=method)  # as the jar wants it
        self._jar.add_cookie_header(request)
        connection = self._connection()
        connection.request(method, path, headers=dict(request.header_items()))
        response = connection.getresponse()
        body = response.read()
        self._jar.extract_cookies(response, request)
        if response.status != status:
            raise WrongAnswerError(f"{method} {path}: {response.status} instead of {status}: {body[-500:]!r}")
        return response, body

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=TIMEOUT)
            self._mine.connection = connection
            self._connections.append(connection)
        return connection


def _together(pool: ThreadPoolExecutor, *calls: Callable[[], None]) -> None:
    for future in [pool.submit(call) for call in calls]:
        future.result()
