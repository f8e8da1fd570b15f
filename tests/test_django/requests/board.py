"""A message board as a Django project serves it, and visitors who come through three doors: WSGI, ASGI, live."""

from __future__ import annotations

import functools
import gzip
import http.client
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie
from typing import TYPE_CHECKING, Any

import django.db
from asgiref.sync import async_to_sync
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from tests.eventually import eventually
from tests.test_django.project import dialect
from tests.test_django.project.models import Message
from waitress import wasyncore  # type: ignore[import-untyped]  # waitress has no types
from waitress.server import create_server  # type: ignore[import-untyped]

from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tests.test_django.project.dialect import Pair

# With the methods of this project's backend, which django-stubs cannot know.
connection: Any = django.db.connection
connections: Any = django.db.connections

MIDDLEWARE = "django_replswitch.middleware.ReplicationMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


def shown() -> str:
    """Read the messages on the side that the state asks for: ``"1 2"``."""
    return " ".join(Message.objects.order_by("id").values_list("body", flat=True))


def write(body: object) -> None:
    """Write a message on the side that the state asks for."""
    Message.objects.create(body=str(body))


def answer(body: object, status: int = 200) -> HttpResponse:
    """A response; a redirect leads to the board."""
    return HttpResponse(str(body), status=status, headers={"Location": "/"} if 300 <= status < 400 else None)


def board(request: HttpRequest) -> HttpResponse:
    """Show all messages; a POST writes ``?n=…`` and answers ``?status=…``."""
    if request.method != "POST":
        return answer(shown())
    write(request.GET["n"])
    return answer("written", int(request.GET.get("status", 302)))


@dataclass(frozen=True)
class Page:
    """A response as a client sees it."""

    status: int
    text: str
    headers: dict[str, str]
    cookies: dict[str, Morsel[str]]

    @property
    def told(self) -> str:
        """The text of the debug header."""
        return self.headers["replswitch"]

    @property
    def sides(self) -> list[str]:
        """The sides that served the request, in the order of the debug header."""
        return [part.partition(";")[0].strip() for part in self.told.split(",")]

    @property
    def side(self) -> str:
        """The only side that served the request."""
        (side,) = set(self.sides)
        return side

    @property
    def markers(self) -> list[Morsel[str]]:
        """The markers that it sets."""
        return [morsel for name, morsel in self.cookies.items() if name.startswith("just_updated")]


@dataclass
class Visitor:
    """Sends requests through a door, and keeps cookies as long as their Max-Age says."""

    door: Callable[..., Page]
    jar: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def cookie(self) -> str:
        """The Cookie header that the next request has."""
        return "; ".join(f"{name}={value}" for name, (value, until) in self.jar.items() if time.time() < until)

    def send(self, method: str, path: str = "/", **headers: str) -> Page:
        """Send a request and keep the cookies of the answer."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie and "Cookie" not in sent:
            sent["Cookie"] = self.cookie
        page = self.door(method, path, sent)
        self.keep(page)
        return page

    def keep(self, page: Page) -> None:
        """Keep the cookies of a page."""
        for name, morsel in page.cookies.items():
            self.jar[name] = (morsel.value, time.time() + float(morsel["max-age"] or "inf"))

    def get(self, path: str = "/", **headers: str) -> Page:
        """Ask for a page."""
        return self.send("GET", path, **headers)

    def post(self, path: str = "/", **headers: str) -> Page:
        """Post, and stay where the answer leads to."""
        return self.send("POST", path, **headers)

    def submit(self, path: str) -> Page:
        """Post, and follow the redirect if the answer is one."""
        page = self.post(path)
        return self.get(page.headers["location"]) if "location" in page.headers else page


def page_of(response: Any, pieces: Iterable[bytes]) -> Page:
    """A response of Django's test clients, as a page."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Page(response.status_code, text_of(pieces, headers), headers, dict(response.cookies.items()))


def text_of(pieces: Iterable[bytes], headers: dict[str, str]) -> str:
    """Return the text of a body, which may be compressed."""
    body = b"".join(pieces)
    return (gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body).decode()


def through_wsgi(method: str, path: str, headers: dict[str, str], *, raising: bool = True) -> Page:
    """Through Django's test client."""
    before = stack()
    client = Client(raise_request_exception=raising)
    try:
        response: Any = client.generic(method, path, headers=headers)
        return page_of(response, response)
    finally:
        assert stack() is before, "the request has left a state behind"


def through_asgi(method: str, path: str, headers: dict[str, str], *, raising: bool = True) -> Page:
    """Through Django's asynchronous test client, in an event loop of its own."""

    async def send() -> Page:
        before = stack()
        client = AsyncClient(raise_request_exception=raising)
        # This client sends a Cookie header of its own in any case.
        client.cookies.load(headers.get("Cookie", ""))
        others = {name: value for name, value in headers.items() if name != "Cookie"}
        response: Any = await client.generic(method, path, headers=others)
        assert stack() is before, "the request has left a state behind"
        pieces = [piece async for piece in response] if response.streaming else response
        return page_of(response, pieces)

    return async_to_sync(send)()


class LiveServer:
    """Django's WSGI application under a real server, asked over HTTP; one connection for each request."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, method: str, path: str, headers: dict[str, str]) -> Page:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            cookies: SimpleCookie = SimpleCookie()
            for header in response.headers.get_all("Set-Cookie") or ():
                cookies.load(header)
            found = {name.lower(): value for name, value in response.headers.items()}
            return Page(response.status, response.read().decode(), found, dict(cookies.items()))


@contextmanager
def live_server(threads: int = 4) -> Iterator[LiveServer]:
    """Serve the project on a free port while the block runs, with the MIDDLEWARE of the first request."""
    made = functools.cache(get_wsgi_application)
    sockets: dict[int, Any] = {}

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return made()(environ, start_response)

    server = create_server(
        application,
        map=sockets,
        host="127.0.0.1",
        port=0,
        threads=threads,
    )
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.is_set():
            wasyncore.loop(timeout=0.02, map=sockets, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield LiveServer(server.effective_port)
    finally:
        stopped.set()
        thread.join()


class Site:
    """The project with views of a test's own, on the pair, while a test runs.

    Attributes:
        pair: the servers.
    """

    def __init__(self, pair: Pair, exits: ExitStack) -> None:
        self.pair = pair
        self._others = {server: self._links(server) for server in ("master", "slave")}  # of tests before this one
        self._exits = exits
        self.change(REPLSWITCH={"DEBUG_HEADER": True}, ROOT_URLCONF=(path("", board),), ALLOWED_HOSTS=["*"])

    def change(self, **changed: Any) -> None:
        """Change settings until the test ends."""
        self._exits.enter_context(override_settings(**changed))

    def options(self, **options: Any) -> None:
        """Change options of REPLSWITCH until the test ends; the debug header stays."""
        self.change(REPLSWITCH={"DEBUG_HEADER": True, **options})

    def sessions(self, engine: str = "django_replswitch.sessions") -> None:
        """Let requests have sessions."""
        self.change(MIDDLEWARE=[MIDDLEWARE, SESSIONS], SESSION_ENGINE=engine)

    def serve(self, **views: Any) -> None:
        """Serve views under their names; ``root=`` in the place of the board."""
        root = views.pop("root", board)
        # Any hashable sequence of patterns is an URLconf.
        self.change(ROOT_URLCONF=(path("", root), *(path(name, view, name=name) for name, view in views.items())))

    def on(self, server: str) -> str:
        """The rows on one server, over a separate connection."""
        with closing(self.pair.connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT body FROM project_message ORDER BY id")
            return " ".join(body for (body,) in cursor.fetchall())

    def assert_lagged(self, missing: object = 2) -> None:
        """Without a lag the pages before this prove nothing."""
        assert str(missing) in self.on("master").split()
        assert str(missing) not in self.on("slave").split(), "the slave did not lag, so nothing was tested"

    def has_no_links(self, *servers: str) -> bool:
        """Whether the test has no connection to these servers. They see one closed a moment later, so ask again."""
        return eventually(lambda: not any(self._links(server) - self._others[server] for server in servers))

    def _links(self, server: str) -> set[int]:
        return dialect.links_of(self.pair, server)

    def visitor(self) -> Visitor:
        """A visitor through the test client."""
        return Visitor(through_wsgi)
