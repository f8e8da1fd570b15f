"""How many calls of Python functions in our own files a read costs; `counting` says what a call is.

A read is execute() and fetchone() of a new cursor. cursor() and close() are not part of it and have lines of their own.
connect() is counted with PyMySQL inside the WSGI middleware, in a request with a marker; in
Django the whole GET is, from the handler's call to the close() of its response, with one get() of the ORM.

It is a steady state: the same visitor has sent such requests before, so links are open, caches are warm, and the slave
is known to have what the marker asks for. Of several requests the median is told. What the driver calls in
replswitch/drivers/ by itself is no call of ours and only listed. --verbose lists the functions. Needs mariadbd,
mysqlclient and PyMySQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import replswitch
from cost.counting import Calls, counted
from cost.django_project import OURS
from cost.django_side import DRIVERS, Worker, django_pair, project_of
from cost.ratio import Row
from cost.served import ENVIRON, send, serve
from replswitch.testing import MariaDBPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

WARM = 5
"""Requests before those that are counted."""

REQUESTS = 21
"""Requests that are counted."""

FIRST, SECOND = 40, 8
"""The most calls that the first and the second read of a request may cost through connect()."""

DJANGO, FILES = 40, 12
"""The most calls that a whole GET in Django may cost, and the most files in which they may be."""

SECRET = "a secret for the benchmark alone"
HEADERS = [("Content-Type", "text/plain; charset=utf-8")]


class Application:
    """A WSGI application that reads twice in a GET, and writes in a POST.

    Args:
        db: from `replswitch.connect`.
        port: of the slave, where each read must run.

    Attributes:
        is_counting: whether it counts; where it is counted itself, it must not.
        reads: the calls of the reads, a list for each read of a request, with one entry for each request.
        around: the same for the reads with their cursor() and close().
    """

    def __init__(self, db: Any, port: int) -> None:
        self._db = db
        self._port = port
        self.is_counting = True
        self.reads: tuple[list[Calls], ...] = ([], [])
        self.around: tuple[list[Calls], ...] = ([], [])

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        if environ["REQUEST_METHOD"] == "POST":
            with self._db.cursor() as cursor:
                cursor.execute("INSERT INTO message (body) VALUES ('hello')")
        elif self.is_counting:
            for number in range(2):
                self._count(number, whole=environ["QUERY_STRING"] == "whole")
        else:
            for _ in range(2):
                self._read_whole()
        start_response("200 OK", HEADERS)
        return [b"Hello world!"]

    def _count(self, number: int, *, whole: bool) -> None:
        if whole:
            with counted() as calls:
                self._read_whole()
            self.around[number].append(calls)
            return
        cursor = self._db.cursor()
        with counted() as calls:
            self._read(cursor)
        cursor.close()
        self.reads[number].append(calls)

    def _read_whole(self) -> None:
        cursor = self._db.cursor()
        self._read(cursor)
        cursor.close()

    def _read(self, cursor: Any) -> None:
        cursor.execute("SELECT @@port")
        (port,) = cursor.fetchone()
        if port != self._port:
            raise RuntimeError(f"A read ran on port {port}, and not on the slave's {self._port}.")


def typical(several: list[Calls]) -> Calls:
    """Return the request with the median number of calls, of those after the first `WARM`."""
    return sorted(several[WARM:], key=lambda calls: calls.ours.total())[(len(several) - WARM) // 2]


def row(name: str, several: list[Calls], limit: float | None = None) -> Row:
    """Make a row of the calls."""
    calls = typical(several)
    totals = [each.ours.total() for each in several[WARM:]]
    spread = "" if min(totals) == max(totals) else f"; the requests {min(totals)} to {max(totals)}"
    detail = f"in {len(calls.files)} files; by the driver {calls.drivers.total()}{spread}"
    return Row(name, calls.ours.total(), limit, detail, breakdown=calls.breakdown())


def through_connect() -> Iterator[Row]:
    """Yield the calls of connect()."""
    with MariaDBPair() as pair, replswitch.connect(pair.master, pair.slaves) as db:
        with db.cursor() as cursor:
            cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
        application = Application(db, pair.slaves[0]["port"])
        wrapped: WSGIApplication = ReplicationMiddleware(application, secret=SECRET)
        cookie = send(wrapped, "POST")
        pair.wait_caught_up()
        environ = ENVIRON | {"HTTP_COOKIE": cookie}
        for query in "reads", "whole":
            for _ in range(WARM + REQUESTS):
                serve(wrapped, environ | {"QUERY_STRING": query})
        application.is_counting = False
        requests = [_whole_request(wrapped, environ) for _ in range(WARM + REQUESTS)]
    yield row("calls, connect(): the first read of a request", application.reads[0], FIRST)
    yield row("  with cursor() and close()", application.around[0])
    yield row("calls, connect(): the second read of the request", application.reads[1], SECOND)
    yield row("  with cursor() and close()", application.around[1])
    yield row("  the request with both, and with the middleware", requests)


def _whole_request(wrapped: WSGIApplication, environ: WSGIEnvironment) -> Calls:
    with counted() as calls:
        serve(wrapped, environ)
    return calls


def through_django() -> Iterator[Row]:
    """Yield the calls in Django, with each driver."""
    with django_pair() as pair:
        for driver in DRIVERS:
            with Worker(project_of(pair, OURS, driver)) as worker:
                cookie = worker.do("write")
                pair.wait_caught_up()
                plain, marked = (
                    [Calls.of(*pair) for pair in worker.do("calls", cookie=sent, number=WARM + REQUESTS)]
                    for sent in ("", cookie)
                )
            yield row(f"calls, Django, {driver}: a GET with one query", plain, DJANGO)
            calls = typical(plain)
            yield Row("  files in which they are", len(calls.files), FILES, breakdown=tuple(sorted(calls.files)))
            yield row("  the same GET with a marker", marked)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    yield from through_connect()
    yield from through_django()
