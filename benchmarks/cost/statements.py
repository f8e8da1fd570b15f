"""How many statements reach the servers for each request, against those that the application itself sends.

The servers count them (`Questions` of SHOW GLOBAL STATUS, on the master and the slave together; what asking costs is
taken off). One visitor's requests are served without and with the middleware and connect(); his cookie is kept.
Links are opened before anything is counted; what that takes stands in the last lines. On MariaDB and on MySQL, with
PyMySQL and with mysqlclient, which must be there.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import replswitch
from cost.ratio import Row
from cost.served import send
from replswitch.testing import MariaDBPair, MySQLPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from replswitch.testing.servers import ServerPair

REQUESTS = 50

PAIRS: dict[str, type[ServerPair]] = {"MariaDB": MariaDBPair, "MySQL": MySQLPair}
DRIVERS = ("pymysql", "mysqlclient")


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
    """Counts the statements on both servers of a pair, without those of the counting itself."""

    def __init__(self, pair: ServerPair) -> None:
        self._dialect = pair.dialect
        # Kept: the end of a connection is counted, and some time later.
        self._master, self._slave = self._connections = [pair.admin("master"), pair.admin("slave")]

    def _questions(self) -> int:
        total = 0
        for connection in self._connections:
            with connection.cursor() as cursor:
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
                total += int(cursor.fetchall()[0][1])
        return total

    def wait_caught_up(self) -> None:
        """Wait until the slave has caught up with the master."""
        with self._master.cursor() as master, self._slave.cursor() as slave:
            master.execute(self._dialect.position)
            slave.execute(self._dialect.wait, (master.fetchall()[0][0], 10))

    def during(self, call: Callable[[], object]) -> int:
        """Return how many statements the servers got while ``call`` ran."""
        started = self._questions()
        call()
        return self._questions() - started - len(self._connections)

    def close(self) -> None:
        """Close the connections that count."""
        for connection in self._connections:
            connection.close()


def a_request(counter: Counter, application: WSGIApplication, *methods: str, waits: bool) -> float:
    """Return the statements of the last of ``methods``, sent by a visitor who has sent the others before.

    With ``waits`` the slave catches up in between.
    """
    total = 0
    for _ in range(REQUESTS):
        cookie = ""
        for method in methods[:-1]:
            cookie = send(application, method, cookie)
            if waits:
                counter.wait_caught_up()
        total += counter.during(partial(send, application, methods[-1], cookie))
    return total / REQUESTS


BEHIND = "GET after POST, the slave stopped"

#: The earlier requests of a visitor, and the request that is counted.
VISITS = {
    "GET": ["GET"],
    "POST": ["POST"],
    "GET after POST": ["POST", "GET"],
    "second GET after POST": ["POST", "GET", "GET"],
    BEHIND: ["POST", "GET"],
}


def of(pair: ServerPair, counter: Counter, driver: str, title: str) -> Iterator[Row]:
    """Yield the rows of one server and driver."""
    with replswitch.connect(pair.master, pair.slaves, driver=driver) as db:
        wrapped = ReplicationMiddleware(application(db, db), secret="a secret for the benchmark alone")
        opening = {
            "slave": counter.during(partial(send, wrapped, "GET")) - 1,
            "master": counter.during(partial(send, wrapped, "POST")) - 1,
        }
        with closing(pair.connect("master")) as master, closing(pair.connect("slave")) as slave:
            unwrapped = application(master, slave)
            for name, methods in VISITS.items():
                if name == BEHIND:
                    pair.stop_slave()
                own = a_request(counter, unwrapped, *methods, waits=name != BEHIND)
                figure = a_request(counter, wrapped, *methods, waits=name != BEHIND)
                asked = questions(name, driver)
                detail = ", and ".join([f"the application's own {own:g}", *asked])
                yield Row(f"statements, {title}, {name}", figure, own + len(asked), detail)
            pair.start_slave()
            counter.wait_caught_up()
        for name, count in opening.items():
            yield Row(f"statements, {title}, to open a link to the {name}", count, detail="once for each link")


def questions(name: str, driver: str) -> list[str]:
    """Return the number of statements of our own that a request may cause."""
    asked = []
    if name.startswith("GET after POST"):
        asked.append("how far the slave is")
    if driver == "mysqlclient" and name in ("POST", BEHIND):  # what the master serves
        asked.append("what was written")
    return asked


def rows() -> Iterator[Row]:
    """Yield the rows."""
    for engine, kind in PAIRS.items():
        with kind() as pair:
            with pair.connect("master") as connection, connection.cursor() as cursor:
                cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
            pair.wait_caught_up()
            with closing(Counter(pair)) as counter:
                yield Row(f"statements, {engine}, without a request", counter.during(int), 0, "the counting itself")
                for driver in DRIVERS:
                    yield from of(pair, counter, driver, f"{engine}, {driver}")
