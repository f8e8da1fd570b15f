"""The visitors: each writes under a token of its own, and knows its own answers from another's."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import Request

from processes.pages import KEPT

if TYPE_CHECKING:
    from processes.links import Link

TIMEOUT: Final = 30.0
"""Seconds after which a request without an answer has failed."""

SHOWN: Final = 3
"""The number of faults that are kept."""


@dataclass
class Seen:
    """The results of all visitors together.

    Attributes:
        requests: how many were sent.
        reads: how many of them were GETs that were answered.
        foreign: answers that were another visitor's, in whole or in part.
        stale: reads that missed a write of the visitor.
        failed: requests without an answer, or with an error.
        users: of each connection to a server, the processes that queries came from.
        on_server: of each server, the reads that it served.
        examples: of faults.
    """

    requests: int = 0
    reads: int = 0
    foreign: int = 0
    stale: int = 0
    failed: int = 0
    users: defaultdict[Link, set[int]] = field(default_factory=lambda: defaultdict(set))
    on_server: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    examples: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wrong(self, what: str, text: str) -> None:
        """Count something that must not be: ``foreign``, ``stale`` or ``failed``."""
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)
            if len(self.examples) < SHOWN:
                self.examples.append(f"{what}: {text}"[:600])

    @property
    def processes(self) -> set[int]:
        """The processes that have served."""
        return {process for users in self.users.values() for process in users}


class FailedError(Exception):
    """A request has no answer, or another one than it must have."""


class Visitor:
    """A browser that posts a form, follows the redirect and reads on; a stranger without cookies reads beside it.

    Args:
        port: of the application.
        seen: gets the results.
        pause: seconds that a query takes.
        writes_once: it posts in its first round only. Its reads then come from the slave, once that has its note.
    """

    def __init__(self, port: int, seen: Seen, *, pause: float, writes_once: bool) -> None:
        self._port = port
        self._seen = seen
        self._pause = pause
        self._writes_once = writes_once
        self._token = uuid.uuid4().hex
        self._written: list[int] = []
        self._number = 0
        self._jar = CookieJar()

    def round(self) -> None:
        """Send four or five requests."""
        self._number += 1
        if self._number == 1 or not self._writes_once:
            where = self._write()
            if where:
                self._read(where, self._jar)
        for _ in range(1 + self._writes_once):
            self._read(self._path("/own"), self._jar)
        self._read(self._path("/echo"), CookieJar())
        self._read(self._path("/echo"), CookieJar())

    def _path(self, page: str, **more: object) -> str:
        echo = f"{self._token} {self._number} {uuid.uuid4().hex}"
        return f"{page}?{urlencode({'token': self._token, 'echo': echo, 'pause': self._pause, **more})}"

    def _write(self) -> str:
        """Post, and return where the answer leads."""
        path = self._path("/add", number=self._number)
        try:
            told, where = self._send("POST", path, self._jar, http.client.SEE_OTHER)
        except FailedError as error:
            self._seen.wrong("failed", str(error))
            return ""
        self._written.append(self._number)
        self._look(path, told)
        if _values(where) != {name: value for name, value in _values(path).items() if name != "number"}:
            self._seen.wrong("foreign", f"POST {path} led to {where}")
            return ""
        return where

    def _read(self, path: str, jar: CookieJar) -> None:
        try:
            told, _ = self._send("GET", path, jar, http.client.OK)
        except FailedError as error:
            self._seen.wrong("failed", str(error))
            return
        self._look(path, told)
        with self._seen.lock:
            self._seen.reads += 1
            self._seen.on_server[told["link"][0]] += 1

    def _look(self, path: str, told: dict[str, Any]) -> None:
        """Check that the response belongs to this visitor and lacks nothing."""
        with self._seen.lock:
            self._seen.users[told["link"][0], told["link"][1]].add(told["process"])
        notes = told.get("notes", [])
        if told["echo"] != _values(path)["echo"] or any(token != self._token for token, _ in notes):
            self._seen.wrong("foreign", f"{path} was answered with {told}")
        elif "notes" in told:
            missed = set(self._written[-KEPT:]) - {number for _, number in notes}
            if missed:
                self._seen.wrong("stale", f"{path} misses {sorted(missed)}: {told}")

    def _send(self, method: str, path: str, jar: CookieJar, status: int) -> tuple[dict[str, Any], str]:
        """Send a request, through a connection of its own; return what the answer tells, and where it leads."""
        request = Request(f"http://127.0.0.1:{self._port}{path}", method=method)  # as the jar wants it
        jar.add_cookie_header(request)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        with self._seen.lock:
            self._seen.requests += 1
        try:
            connection.request(method, path, headers={**dict(request.header_items()), "Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        jar.extract_cookies(response, request)
        if response.status != status:
            raise FailedError(f"{method} {path}: {response.status} {body[-300:].decode(errors='replace')}")
        try:
            told: dict[str, Any] = json.loads(body)
        except ValueError as error:
            raise FailedError(f"{method} {path}: {body[-300:]!r} is no JSON") from error
        return told, response.headers.get("Location", "")


def _values(path: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(path).query))


def visit(port: int, seen: Seen, *, visitors: int, requests: int, pause: float) -> None:
    """Let visitors send requests, in parallel.

    Args:
        port: of the application.
        seen: gets the results.
        visitors: how many.
        requests: of all together; a few more are sent, so that each visitor ends a round.
        pause: seconds that a query takes.
    """
    until, given_up = seen.requests + requests, seen.failed + requests / 10

    def go_on(visitor: Visitor) -> None:
        while seen.requests < until and seen.failed < given_up:
            try:
                visitor.round()
            except (LookupError, TypeError, ValueError) as error:  # an answer that no page of ours gives
                seen.wrong("foreign", repr(error))

    threads = [
        threading.Thread(
            target=go_on, args=(Visitor(port, seen, pause=pause, writes_once=bool(number % 2)),), daemon=True
        )
        for number in range(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # in slices, so that Ctrl-C works
            thread.join(0.5)
