"""What a query through replswitch.connect() costs, against the same query on a bare PyMySQL connection.

A query is cursor(), execute("SELECT 1"), fetchone() and close(), on a real pair of MariaDB servers. Two connections to
one server differ by themselves, so each group of batches opens fresh ones, and the ratio of two bare connections
stands in the table too. Needs mariadbd.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pymysql
from ratio import Batch, Row, Times, measure, ratio, repeated, run
from served import ENVIRON, serve

import replswitch
from replswitch.testing import MariaDBPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

GROUPS = 24
ROUNDS = 30

HEADERS = [("Content-Type", "text/plain; charset=utf-8")]

# One setting that is not about replication: what TLS costs is the same on both sides, and not measured here.
SETTINGS = {"ssl_disabled": True}


def query(connection: Any) -> Any:
    """Run one query."""
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    row = cursor.fetchone()
    cursor.close()
    return row


def queries(connection: Any) -> Batch:
    """Make a batch of queries."""
    return repeated(partial(query, connection))


def query_in_block(db: replswitch.connection.Connection) -> None:
    """Run one query in a block of its own, which takes a link and gives it back."""
    with db.use_slave():
        query(db)


def application(connection: Any) -> WSGIApplication:
    """Make a WSGI application that runs one query for each request."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return [b"%d" % query(connection)]

    return answer


def bare(settings: dict[str, Any]) -> pymysql.Connection[Any]:
    """Open a connection of PyMySQL's own."""
    return pymysql.connect(**settings, autocommit=True)


def groups(master: dict[str, Any], slave: dict[str, Any]) -> Iterator[Times]:
    """Measure what belongs together, each time with fresh connections."""
    with bare(master) as one, bare(master) as another:
        yield measure({"one": queries(one), "another": queries(another)}, ROUNDS)
    with replswitch.connect(master, [slave]) as db, bare(master) as one:
        yield measure({"bare": queries(one), "master": queries(db)}, ROUNDS)
    with replswitch.connect(master, [slave]) as db, bare(slave) as one, db.use_slave():
        yield measure({"bare slave": queries(one), "slave": queries(db)}, ROUNDS)
    with replswitch.connect(master, [slave]) as db, bare(slave) as one:
        wrapped = ReplicationMiddleware(application(db), secret="a secret for the benchmark alone")
        sides = {
            "bare once": queries(one),
            "block": repeated(partial(query_in_block, db)),
            "bare request": repeated(partial(serve, application(one), ENVIRON)),
            "request": repeated(partial(serve, wrapped, ENVIRON)),
        }
        yield measure(sides, ROUNDS)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    times: Times = {}
    with MariaDBPair() as pair:
        for _ in range(GROUPS):
            for group in groups(pair.master | SETTINGS, pair.slaves[0] | SETTINGS):
                for name, batches in group.items():
                    times.setdefault(name, []).extend(batches)
    yield ratio("a bare query / the same on another bare connection", times, "another", "one")
    yield ratio("a query through connect() / a bare one, master state", times, "master", "bare", limit=1.1)
    yield ratio("  slave state, in one block", times, "slave", "bare slave", limit=1.1)
    yield ratio("  slave state, each in a block of its own", times, "block", "bare once")
    yield ratio("a GET with one query, with middleware and connect()", times, "request", "bare request")


if __name__ == "__main__":
    run(__doc__, rows)
