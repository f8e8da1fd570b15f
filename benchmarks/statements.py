"""How many statements reach the servers for each request, against those that the application itself sends.

The servers count them (`Questions` of SHOW GLOBAL STATUS, on the master and the slave together; what asking costs is
taken off). One visitor's requests are served without and with the middleware and connect(); his cookie is kept.
Links are opened before anything is counted; what that takes stands in the last lines. Needs mariadbd.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from ratio import Row, run
from served import send

import replswitch
from replswitch.testing import MariaDBPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REQUESTS = 50


def application(write_to: Any, read_from: Any) -> WSGIApplication:
    """Make an application that reads in one statement and writes in another."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            with write_to.cursor() as cursor:
                cursor.execute("INSERT INTO message (body) VALUES ('hello')")
            start_response("303 See Other", [("Location", "/messages")])
            return [b""]
        with read_from.cursor() as cursor:
            cursor.execute("SELECT body FROM message ORDER BY id DESC LIMIT 1")
            cursor.fetchall()
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"messages"]

    return answer


class Counter:
    """Counts what both servers of a pair are asked, without what the counting itself asks."""

    def __init__(self, pair: MariaDBPair) -> None:
        self._connections = [pair.admin("master"), pair.admin("slave")]

    def _questions(self) -> int:
        total = 0
        for connection in self._connections:
            with connection.cursor() as cursor:
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
                total += int(cursor.fetchall()[0][1])
        return total

    def during(self, call: Callable[[], object]) -> int:
        """Return how many statements the servers got while ``call`` ran."""
        started = self._questions()
        call()
        return self._questions() - started - len(self._connections)

    def close(self) -> None:
        """Close the connections that count."""
        for connection in self._connections:
            connection.close()


def a_request(counter: Counter, application: WSGIApplication, *methods: str) -> float:
    """Return the statements that the last of ``methods`` takes, sent by a visitor who has sent the others before."""
    total = 0
    for _ in range(REQUESTS):
        cookie = ""
        for method in methods[:-1]:
            cookie = send(application, method, cookie)
        total += counter.during(partial(send, application, methods[-1], cookie))
    return total / REQUESTS


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with MariaDBPair() as pair:
        with pair.connect("master") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
        pair.wait_caught_up()
        with closing(Counter(pair)) as counter, replswitch.connect(pair.master, pair.slaves) as db:
            yield Row("statements while nobody asks (the counting itself)", counter.during(int), 0)
            wrapped = ReplicationMiddleware(application(db, db), secret="a secret for the benchmark alone")
            opening = {
                "slave": counter.during(partial(send, wrapped, "GET")) - 1,
                "master": counter.during(partial(send, wrapped, "POST")) - 1,
            }
            bare: dict[str, Any] = {}

            def connect(name: str) -> None:
                bare[name] = pair.connect(name)

            alone = {name: counter.during(partial(connect, name)) for name in opening}
            unwrapped = application(bare["master"], bare["slave"])
            for name, methods in (("GET", ["GET"]), ("POST", ["POST"]), ("GET after POST", ["POST", "GET"])):
                own = a_request(counter, unwrapped, *methods)
                figure = a_request(counter, wrapped, *methods)
                asked = 1 if name == "GET after POST" else 0  # how far the slave is
                detail = f"the limit is the application's own number{' and one' if asked else ''}"
                yield Row(f"statements, {name}", figure, own + asked, detail)
            for name, count in opening.items():
                detail = f"once for each link; a bare PyMySQL connection: {alone[name]}"
                yield Row(f"statements when a link to the {name} is opened", count, detail=detail)
            for connection in bare.values():
                connection.close()


if __name__ == "__main__":
    run(__doc__, rows)
