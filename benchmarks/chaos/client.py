"""A visitor of the application under chaos, who checks that no own write is missing."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from itsdangerous import URLSafeSerializer

from chaos.ledger import Ledger, Write
from chaos.pages import IN_TRANSACTION, KEPT, NO_SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READS = ("/one", "/one", "/three", "/blocks", "/transaction")
WRITES = {"/form": 1, "/json": 1, "/both": 2}

PLACE = re.compile(r"\b(\d+):([0-9A-F]+)/([0-9A-F]+)")
"""A place on a timeline of PostgreSQL."""

PATIENCE = 30.0
"""Seconds after which a client gives a request up."""


@dataclass
class Response:
    """An answer."""

    status: int
    told: dict[str, Any]
    server: str
    location: str


class Slaves(Protocol):
    """Asks the slaves that have no fault themselves."""

    def slave_has(self, client: int, number: int) -> bool:
        """Say whether one of them has a write."""

    def received(self) -> int | None:
        """Return up to which place in the master's log they have it, on PostgreSQL; None on other products."""


class Client(threading.Thread):
    """A client with cookies of its own, in a thread.

    Args:
        number: which one it is.
        port: the application's.
        ledger: records the responses.
        seed: of the random order of its requests.
        doubtful_for: seconds for which the master serves a visitor whose write may have been carried out.
        slaves: asks the slaves themselves.
        pause: seconds between an answer and the next request.
    """

    def __init__(
        self,
        number: int,
        port: int,
        ledger: Ledger,
        *,
        seed: int,
        doubtful_for: float,
        slaves: Slaves,
        pause: float = 0.0,
    ) -> None:
        super().__init__(name=f"client {number}")
        self._number = number
        self._port = port
        self._ledger = ledger
        self._random = random.Random(f"{seed} {number}")
        self._doubtful_for = doubtful_for
        self._slaves = slaves
        self._pause = pause
        self._connection: http.client.HTTPConnection | None = None
        self._cookies: dict[str, str] = {}
        self._written = 0
        self._told: list[int] = []
        self._told_at = 0.0
        self._doubtful_until = 0.0
        self.reads_only = threading.Event()
        self.over = threading.Event()
        self.resting = threading.Event()
        self.rests = threading.Event()
        self.servers: Counter[str] = Counter()

    def run(self) -> None:
        """Read and write, with the pause between two requests."""
        try:
            while not self.over.is_set():
                if self.resting.is_set():
                    self.rests.set()
                    self.over.wait(0.02)
                    continue
                self.rests.clear()
                if self.reads_only.is_set():
                    self._cookies.clear()
                    self._told.clear()
                    self._read("/one")
                elif self._random.random() < 0.25:
                    self._write(self._random.choice(list(WRITES)))
                else:
                    self._read(self._random.choice(READS))
                if self._pause:
                    self.over.wait(self._pause)
        except BaseException as error:  # noqa: BLE001 - the ledger reports a client that ended
            self._ledger.wrong("client", f"{self.name} ended: {error!r}")
        finally:
            self._hang_up()

    # Reading

    def _read(self, path: str) -> None:
        since = time.monotonic()
        response = self._send("GET", f"{path}?client={self._number}")
        self._ledger.took(f"GET {path}", since, time.monotonic())
        self._judge_read(path, since, response)

    def _judge_read(self, path: str, since: float, response: Response) -> None:
        error = response.told.get("error")
        self.servers[response.server] += 1
        if response.status == 200:
            self._ledger.count("reads answered")
            if "without_master" in response.told:
                self._ledger.count("use_master() without a master")
                self._in_doubt()
                if not self._ledger.master_may_be_gone(since, time.monotonic()):
                    self._ledger.wrong("a master that is there was not found", str(response.told["without_master"]))
            self._look(path, response)
        elif error == IN_TRANSACTION:
            self._ledger.count("errors in a transaction on a slave")
            self._in_doubt()
        elif error == NO_SERVER and self._ledger.master_may_be_gone(since, time.monotonic()):
            self._without_master(path, since, response)
        else:
            self._ledger.wrong("a read failed", f"{path} {response}")
            self._in_doubt()

    def _without_master(self, path: str, since: float, response: Response) -> None:
        """Only a read that must see a write which no living server has may fail without a master."""
        self._ledger.count("reads of what no living server has")
        if since < self._doubtful_until:
            return
        if not self._told:
            self._ledger.wrong("a read failed", f"{path}, and there was nothing to see: {response}")
        elif "during query" in str(response.told.get("text")):
            self._in_doubt()  # the lost statement may have been a write; only the page knows
        elif self._holds_by_time():
            self._ledger.count("of these: the position is not known")
        elif self._is_of_earlier_timeline():
            self._ledger.count("of these: written before a promotion")
        elif self._slaves.slave_has(self._number, self._told[-1]):
            again = self._send("GET", f"{path}?client={self._number}")
            if again.told.get("error") != NO_SERVER:
                return
            if self._is_beyond_the_slaves():
                self._ledger.count("of these: no slave has received the position")
            else:
                self._ledger.wrong("a read failed that a slave could serve", f"{path} {again}")

    def _holds_by_time(self) -> bool:
        """Return whether the master died before it reported the position of a write, so it alone may serve (M1)."""
        return any(time.time() - marker.get("t", 0) < self._doubtful_for for marker in self._markers())

    def _markers(self) -> Iterator[dict[str, Any]]:
        for token in self._cookies.values():
            _, marker = URLSafeSerializer("").loads_unsafe(token)
            if isinstance(marker, dict):
                yield marker

    def _places(self) -> list[tuple[int, int]]:
        """Return the places in the markers on PostgreSQL: the timeline, and the bytes."""
        found = PLACE.findall(str([marker.get("p") for marker in self._markers()]))
        return [(int(timeline), int(high, 16) << 32 | int(low, 16)) for timeline, high, low in found]

    def _is_beyond_the_slaves(self) -> bool:
        """Return whether the latest position is after everything that the slaves have received, on PostgreSQL.

        A position may include records of other sessions, which a master that is killed has not sent.
        """
        places, received = self._places(), self._slaves.received()
        return bool(places) and received is not None and max(places)[1] > received

    def _is_of_earlier_timeline(self) -> bool:
        """Return whether a server was promoted after the latest write, on PostgreSQL.

        No living server may then be known to have the write: see `replswitch.positions.postgresql`.
        """
        return bool(self._places()) and self._ledger.promoted_since(self._told_at)

    def _look(self, path: str, response: Response) -> None:
        """Look for all writes that were acknowledged."""
        for name in ("numbers", "again"):
            shown = response.told.get(name)
            if shown is None:
                continue
            oldest = min(shown) if len(shown) == KEPT else 0
            missing = [number for number in self._told[-KEPT:] if number >= oldest and number not in shown]
            if missing or (self._told and not shown):
                self._ledger.wrong(
                    "stale", f"{path} client {self._number} misses {missing}, sees {shown[:3]}, by {response.server}"
                )
        for latest in response.told.get("latest", []):
            if self._told and latest < self._told[-1]:
                self._ledger.wrong(
                    "stale",
                    f"{path} client {self._number} misses {self._told[-1]}, sees {latest}, by {response.server}",
                )

    def _in_doubt(self) -> None:
        self._doubtful_until = time.monotonic() + self._doubtful_for

    # Writing

    def _write(self, path: str) -> None:
        self._written += 1
        number, token = self._written, uuid.uuid4().hex
        values = {"client": self._number, "number": number, "token": token}
        since = time.monotonic()
        response = self._send("POST", path, values, as_json=path == "/json")
        until = time.monotonic()
        self._ledger.took(f"POST {path}", since, until)
        outcome = "unknown"
        if response.status in {201, 303}:
            outcome = "done"
            self._told.append(number)
            self._told_at = since
            del self._told[: -2 * KEPT]
        elif response.told.get("error") == NO_SERVER:
            outcome = "refused"
        self._ledger.wrote(Write(self._number, number, token, WRITES[path], outcome))
        if outcome != "done":
            if not self._ledger.master_may_be_gone(since, until):
                self._ledger.wrong("a write failed with a master that is there", f"{path} {response}")
            self._in_doubt()
        elif response.location:
            self._follow(response.location)
        else:
            self._look(path, response)

    def _follow(self, location: str) -> None:
        since = time.monotonic()
        response = self._send("GET", location)
        self._ledger.took(f"GET {location} behind a POST", since, time.monotonic())
        self._judge_read(location.partition("?")[0], since, response)

    # HTTP

    def _send(self, method: str, path: str, values: dict[str, Any] | None = None, *, as_json: bool = False) -> Response:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        body = None
        if values is not None:
            encode: Callable[[Any], str] = json.dumps if as_json else urlencode
            body = encode(values)
            headers["Content-Type"] = "application/json" if as_json else "application/x-www-form-urlencoded"
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            self._connection.request(method, path, body, headers)
            got = self._connection.getresponse()
            text = got.read()
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            self._ledger.wrong("no answer", f"{method} {path}: {error!r}")
            return Response(0, {"error": "no answer"}, "", "")
        for header in got.headers.get_all("Set-Cookie", []):
            for morsel in SimpleCookie(header).values():
                self._cookies[morsel.key] = morsel.value
        told = json.loads(text) if text else {}
        server = str(got.headers.get("Replswitch", "")).partition(",")[0]
        return Response(got.status, told, server, got.headers.get("Location", ""))

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
