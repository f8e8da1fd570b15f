"""Fixtures for the middleware: a strict server, a browser, and a message board on a real pair."""

from __future__ import annotations

import io
import time
from contextlib import closing
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.util import setup_testing_defaults

import pytest

import replswitch
from replswitch.drivers import load_driver
from replswitch.request.marker import Marker, MarkerSigner
from replswitch.state import stack
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.conftest import Served

    from replswitch import Connection
    from replswitch.testing import ReplicatedPair

    Wrap = Callable[..., WSGIApplication]
    SendRequest = Callable[..., "Exchange"]

SECRET = "a long random string of the tests"
HTML = ("Content-Type", "text/html; charset=utf-8")


def environ(method: str = "GET", query: str = "", *, cookie: str | None = None, **extra: Any) -> WSGIEnvironment:
    """A request as PEP 3333 wants it."""
    made: WSGIEnvironment = {"REQUEST_METHOD": method, "QUERY_STRING": query, "wsgi.input": io.BytesIO()}
    if cookie is not None:
        made["HTTP_COOKIE"] = cookie
    made.update(extra)
    setup_testing_defaults(made)
    return made


class Answer:
    """What the headers of a response say."""

    def values(self, name: str) -> list[str]:
        """All headers of one name."""
        raise NotImplementedError

    @property
    def cookies(self) -> list[str]:
        return self.values("Set-Cookie")

    @property
    def told(self) -> str:
        """The text of the debug header."""
        (value,) = self.values("Replswitch")
        return value

    @property
    def side(self) -> str:
        """The side that served the request, which the debug header says."""
        return self.told.partition(";")[0]


class Exchange(Answer):
    """One request and its response as a server sees them, one step at a time. As strict as PEP 3333 is.

    After each step it looks whether the middleware has left the state of the thread as it was.

    Attributes:
        status: from the application; None before the server has got it.
        headers: likewise.
        pieces: what has reached the client, in the order in which it did.
        answers: how often the server got status and headers.
        sent: the headers have reached the client.
        replaced_by: the kind of error for which the headers were replaced.
    """

    def __init__(self, application: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.answers = 0
        self.replaced_by: type[BaseException] | None = None
        self.sent = False
        self._stack = stack()
        try:
            self.result: Iterable[bytes] = application(environ, self.start_response)
        finally:
            self._look()
        self._iterator: Iterator[bytes] | None = None

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info:
            if self.sent:
                raise exc_info[1].with_traceback(exc_info[2])
            self.replaced_by = exc_info[0]
        else:
            assert self.status is None, "the headers were given to the server twice"
        assert not self.sent
        self.answers += 1
        self.status, self.headers = status, headers
        return self._send

    def _send(self, data: bytes) -> None:
        assert self.status is not None, "a piece of the body came before the headers"
        assert isinstance(data, bytes)
        self.sent = True
        self.pieces.append(data)

    def _look(self) -> None:
        assert stack() is self._stack, "the state was held while the server worked"

    def step(self) -> bytes | None:
        """Take one piece of the body and send it; None when there is no more."""
        try:
            if self._iterator is None:
                self._iterator = iter(self.result)
            piece = next(self._iterator, None)
        finally:
            self._look()
        if piece is None:
            assert self.status is not None, "the application never called start_response()"
        elif piece:
            self._send(piece)
        return piece

    def finish(self) -> Exchange:
        """Take what is left of the body, and close it."""
        try:
            while self.step() is not None:
                pass
        finally:
            self.close()
        return self

    def close(self) -> None:
        close = getattr(self.result, "close", None)
        if close is not None:
            try:
                close()
            finally:
                self._look()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def code(self) -> int:
        return int((self.status or "0").split()[0])

    def values(self, name: str) -> list[str]:
        """All headers of one name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Browser:
    """A visitor: sends requests, keeps cookies as long as their Max-Age says, and goes where redirects lead."""

    application: WSGIApplication
    jar: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def cookie(self) -> str | None:
        """The Cookie header that the next request would have."""
        kept = [f"{name}={value}" for name, (value, until) in self.jar.items() if time.time() < until]
        return "; ".join(kept) or None

    def send(self, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        answer = Exchange(self.application, environ(method, query, cookie=self.cookie, **extra)).finish()
        self.keep(answer)
        return answer

    def keep(self, answer: Exchange) -> None:
        """Keep the cookies of a response."""
        for header in answer.cookies:
            for name, morsel in SimpleCookie(header).items():
                self.jar[name] = (morsel.value, time.time() + float(morsel["max-age"] or "inf"))

    def post(self, query: str = "") -> Exchange:
        """Post the form, and follow the redirect if the answer is one."""
        answer = self.send("POST", query)
        return self.send() if answer.values("Location") else answer


class Board:
    """A message board: a POST writes the number ``?n=…`` and answers ``?status=…``, a GET shows all numbers.

    Attributes:
        pair: the servers.
        driver: the one that the board uses.
        db: the board's connection to them.
        application: the board inside the middleware, with the debug header.
    """

    def __init__(self, served: Served, db: Connection) -> None:
        self.pair, self.driver = served
        self.db = db
        self.application = ReplicationMiddleware(self.serve, SECRET, debug_header=True)

    def serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = parse_qs(environ["QUERY_STRING"])
        if environ["REQUEST_METHOD"] != "POST":
            start_response("200 OK", [HTML])
            return [" ".join(map(str, self.numbers())).encode()]
        self.write(int(query["n"][0]))
        status = query.get("status", ["302 Found"])[0]
        start_response(status, [HTML, ("Location", "/")] if status.startswith("3") else [HTML])
        return [b"written"]

    def numbers(self) -> list[int]:
        """Read on the side that the state asks for."""
        with self.db.cursor() as cursor:
            cursor.execute("SELECT n FROM wsgi_message ORDER BY n")
            return [row[0] for row in cursor.fetchall()]

    def write(self, number: int) -> None:
        """Write on the side that the state asks for."""
        with self.db.cursor() as cursor:
            cursor.execute(f"INSERT INTO wsgi_message VALUES ({number})")

    def on(self, server: str) -> list[int]:
        """The rows on one server, over a separate connection."""
        with closing(self.pair.connect(server)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT n FROM wsgi_message ORDER BY n")
            return [row[0] for row in cursor.fetchall()]

    def slave_has(self, cookie: str) -> bool:
        """Whether the slave has reached the position in a marker. Rows may be there before their position is."""
        token = cookie.partition("=")[2]
        marker = MarkerSigner(SECRET).read([token], now=time.time(), max_age=60, position_max_age=60)
        assert marker is not None
        driver = load_driver(self.driver)
        with closing(driver.open(self.pair.slaves[0], read_only=True)) as connection:
            reached = driver.fetch_position(connection)[1]
        return reached is not None and all(map(reached.includes, marker.positions.values()))

    def behind(self, application: WSGIApplication, **options: Any) -> WSGIApplication:
        """Another application inside the middleware."""
        return ReplicationMiddleware(application, SECRET, **({"debug_header": True} | options))


def empty_table(pair: ReplicatedPair) -> None:
    """Make the board's table on the master, or empty it."""
    with closing(pair.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TABLE IF EXISTS wsgi_message")
        cursor.execute("CREATE TABLE wsgi_message (n INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO wsgi_message VALUES (1)")
    pair.wait_caught_up()


@pytest.fixture
def board(served: Served) -> Iterator[Board]:
    """A board with only the number 1 on each kind of pair, with each of its drivers, without a lag."""
    pair, driver = served
    empty_table(pair)
    with replswitch.connect(master=pair.master, slaves=pair.slaves, driver=driver) as db:
        yield Board(served, db)


@pytest.fixture
def browser_of() -> type[Browser]:
    """Makes a visitor of an application."""
    return Browser


@pytest.fixture
def exchange() -> SendRequest:
    """Sends one request to an application, and stops when the application has returned its body."""

    def start(application: WSGIApplication, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        return Exchange(application, environ(method, query, **extra))

    return start


@pytest.fixture
def send(exchange: SendRequest) -> SendRequest:
    """Sends one request to an application, and takes the whole response."""

    def whole(application: WSGIApplication, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        return exchange(application, method, query, **extra).finish()

    return whole


@pytest.fixture
def wrap() -> Wrap:
    """Puts the middleware, with the debug header and the tests' secret, around an application."""

    def put(application: WSGIApplication, secret: Any = SECRET, **options: Any) -> WSGIApplication:
        return ReplicationMiddleware(application, secret, **({"debug_header": True} | options))

    return put


@pytest.fixture
def secret() -> str:
    """The secret that `wrap` and `token` use."""
    return SECRET


@pytest.fixture
def token() -> Callable[..., str]:
    """Makes a signed marker of an age in seconds."""

    def sign(age: float = 0, secret: Any = SECRET) -> str:
        return MarkerSigner(secret).write(Marker(time.time() - age))

    return sign
