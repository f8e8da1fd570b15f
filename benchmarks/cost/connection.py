"""What a query through replswitch.connect() costs, against the same query on a bare PyMySQL connection.

A query is cursor(), execute("SELECT 1"), fetchone() and close(), on a real pair of MariaDB servers. Two connections to
one server differ by themselves, so each group of batches opens fresh ones, and the ratio of two bare connections
stands in the table too. A connection with time-outs takes longer than one without, because Python polls before each
read; links to slaves have them, so slave state is held against a bare connection that has the same. Needs mariadbd.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pymysql

import replswitch
from cost.ratio import Batch, Row, Times, measure, ratio, repeated
from cost.served import ENVIRON, serve
from replswitch.drivers.mysql_settings import with_timeouts
from replswitch.testing import MariaDBPair
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from replswitch import Connection

GROUPS = 24
ROUNDS = 30

QUERY = 1.08
"""The most that a query may take of one on a bare connection."""

BLOCK, REQUEST = 1.7, 1.8
"""The same for a query in a block of its own, and for a whole request with one query."""

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


def query_in_block(db: Connection) -> None:
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


def with_the_same_timeouts(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the time-outs that links to slaves have."""
    return with_timeouts(settings, read_only=True)


def groups(master: dict[str, Any], slave: dict[str, Any]) -> Iterator[Times]:
    """Measure what belongs together, each time with fresh connections."""
    with bare(master) as one, bare(master) as another:
        yield measure({"one": queries(one), "another": queries(another)}, ROUNDS)
    with replswitch.connect(master, [slave]) as db, bare(master) as one:
        yield measure({"bare": queries(one), "master": queries(db)}, ROUNDS)
    with (
        replswitch.connect(master, [slave]) as db,
        bare(slave) as one,
        bare(with_the_same_timeouts(slave)) as timed,
        db.use_slave(),
    ):
        sides = {"bare slave": queries(one), "timed slave": queries(timed), "slave": queries(db)}
        yield measure(sides, ROUNDS)
    with (
        replswitch.connect(master, [slave]) as db,
        bare(slave) as one,
        bare(with_the_same_timeouts(slave)) as timed,
    ):
        wrapped = ReplicationMiddleware(application(db), secret="a secret for the benchmark alone")
        sides = {
            "bare once": queries(one),
            "timed once": queries(timed),
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
    yield ratio("  with time-outs / without", times, "timed slave", "bare slave")
    yield ratio("a query through connect() / a bare one, master state", times, "master", "bare", limit=QUERY)
    yield ratio("  slave state / a bare one with time-outs", times, "slave", "timed slave", limit=QUERY)
    yield ratio("  slave state / a bare one without", times, "slave", "bare slave")
    yield ratio("a query in a block of its own / a bare one", times, "block", "bare once", limit=BLOCK)
    yield ratio("  / a bare one with time-outs", times, "block", "timed once")
    yield ratio("a GET with one query, with middleware / a bare query", times, "request", "bare once", limit=REQUEST)
    yield ratio("  / a bare one with time-outs", times, "request", "timed once")
    yield ratio("  / the same GET on a bare connection", times, "request", "bare request")
