"""A message board on a replicated database: a whole application, and a model of how to use replswitch.

replswitch is in it twice, both times in `Board.__init__`: ``connect()`` opens the database, and
``ReplicationMiddleware`` wraps the application. The rest is a board like any other, and names neither a
master nor a slave:

* A GET reads the messages, and reads them from a slave.
* A POST writes a message to the master, and sends its visitor on to the page that shows it.
* That GET after the POST reads from the master, because visitors must see their own message. This
  lasts `SEEN_BY_ALL` seconds, and applies to this visitor only; all others read from the slaves.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from webob import Request, Response
from webob.exc import HTTPMethodNotAllowed, HTTPNotFound, HTTPSeeOther

import replswitch
from replswitch.wsgi import ReplicationMiddleware

from .markup import Html, fill, join, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from wsgiref.types import StartResponse, WSGIEnvironment

SEEN_BY_ALL = 15
"""Seconds after which a message is on every slave: more than any lag to be expected."""

LONGEST_NAME = 40
LONGEST_TEXT = 500

# Databases differ in how they number rows, drivers in how they mark the place of a value (PEP 249, paramstyle).
CREATE = {
    "pymysql": "CREATE TABLE message (id INTEGER PRIMARY KEY AUTO_INCREMENT, name TEXT, text TEXT, written_at DOUBLE)",
    "psycopg": "CREATE TABLE message (id SERIAL PRIMARY KEY, name TEXT, text TEXT, written_at DOUBLE PRECISION)",
    "sqlite3": "CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, text TEXT, written_at DOUBLE)",
}
INSERT = {
    "pymysql": "INSERT INTO message (name, text, written_at) VALUES (%s, %s, %s)",
    "psycopg": "INSERT INTO message (name, text, written_at) VALUES (%s, %s, %s) RETURNING id",
    "sqlite3": "INSERT INTO message (name, text, written_at) VALUES (?, ?, ?)",
}
LATEST = "SELECT id, name, text, written_at FROM message ORDER BY id DESC LIMIT 20"

PROBLEM = '<p id="problem" role="alert" tabindex="-1" autofocus>$problem</p>'


class Message(NamedTuple):
    """A row of the table."""

    id: int
    name: str
    text: str
    written_at: float


class Draft(NamedTuple):
    """The input of the form."""

    name: str = ""
    text: str = ""

    def problem(self) -> str:
        """Say why this cannot be posted; empty when it can."""
        if not self.text.strip():
            return "There is no post yet. Write one, then post it."
        if len(self.text) > LONGEST_TEXT:
            return f"Your post has {len(self.text)} characters, but only {LONGEST_TEXT} fit. Please shorten it."
        if len(self.name) > LONGEST_NAME:
            return f"Your name has {len(self.name)} characters, but only {LONGEST_NAME} fit. Please shorten it."
        return ""


EMPTY = Draft()


class Board:
    """The WSGI application.

    Args:
        driver: ``"pymysql"``, ``"psycopg"`` or ``"sqlite3"``.
        master: the settings of the master.
        slaves: the settings of each slave.
        secret: signs the cookie of a visitor who has just written.
    """

    def __init__(
        self, *, driver: str, master: Mapping[str, Any], slaves: Sequence[Mapping[str, Any]], secret: str
    ) -> None:
        self.db = replswitch.connect(driver=driver, master=master, slaves=slaves)
        self.wsgi = ReplicationMiddleware(self.application, secret=secret, cookie_max_age=SEEN_BY_ALL)
        self.driver = driver

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, through the middleware."""
        return self.wsgi(environ, start_response)

    def application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. The middleware has already chosen the side by its method."""
        return self.respond(Request(environ))(environ, start_response)

    # The responses

    def respond(self, request: Request) -> Response:
        """Return the answer to a request."""
        if request.environ["PATH_INFO"] != "/":
            return HTTPNotFound()
        if request.method in ("GET", "HEAD"):
            return self.show(posted=number(fields(request.query_string).get("posted", "")))
        if request.method == "POST":
            form = fields(request.body.decode(errors="replace"))
            return self.post(Draft(name=form.get("name", "").strip(), text=form.get("text", "")))
        return HTTPMethodNotAllowed(headers=[("Allow", "GET, HEAD, POST")])

    def show(self, draft: Draft = EMPTY, problem: str = "", posted: int | None = None) -> Response:
        """Return the page."""
        messages = [message_html(message, yours=message.id == posted) for message in self.latest()]
        page = fill(
            load("board.html"),
            style=load("board.css"),
            name=draft.name,
            text=draft.text,
            problem=fill(PROBLEM, problem=problem) if problem else "",
            longest_text=LONGEST_TEXT,
            messages=join(messages),
        )
        return Response(page, status=422 if problem else 200, cache_control="no-store")

    def post(self, draft: Draft) -> Response:
        """Write a message and redirect the visitor; or show what is wrong with the message."""
        if problem := draft.problem():
            return self.show(draft, problem)
        return HTTPSeeOther(location=f"/?posted={self.add(draft)}")

    # The database

    def create_table(self) -> None:
        """Make the table. This runs outside any request, and so on the master."""
        with self.db.cursor() as cursor:
            cursor.execute(CREATE[self.driver])

    def add(self, draft: Draft) -> int:
        """Write a message and return its number."""
        with self.db.cursor() as cursor:
            cursor.execute(INSERT[self.driver], (draft.name, draft.text, time.time()))
            return int(cursor.fetchone()[0] if cursor.lastrowid is None else cursor.lastrowid)

    def latest(self) -> list[Message]:
        """Read the latest messages, the newest first."""
        with self.db.cursor() as cursor:
            cursor.execute(LATEST)
            return [Message(*row) for row in cursor.fetchall()]


def message_html(message: Message, *, yours: bool) -> Html:
    """Return one entry of the list."""
    written = datetime.fromtimestamp(message.written_at, tz=UTC).astimezone()
    return fill(
        load("message.html"),
        kind="message yours" if yours else "message",
        id=message.id,
        name=message.name or "Anonymous",
        text=message.text,
        iso=written.isoformat(timespec="seconds"),
        time=written.strftime("%H:%M:%S"),
    )


def fields(encoded: str) -> dict[str, str]:
    """Return the fields of a form or of a query string, with newlines as Python has them."""
    return {name: value.replace("\r\n", "\n") for name, value in parse_qsl(encoded, keep_blank_values=True)}


def number(text: str) -> int | None:
    """Return the number in an address or a form; None if there is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
