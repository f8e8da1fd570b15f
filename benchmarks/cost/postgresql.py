"""What statements through replswitch.connect() cost on PostgreSQL, against the same on a bare psycopg connection.

A query is cursor(), execute("SELECT 1"), fetchone() and close(), on a real pair. The position of an INSERT
outside a transaction comes in the same round trip. The transaction has a SELECT, an INSERT and an UPDATE. psycopg has
no time-out for an answer, but its `wait` takes one, so slave state is compared with a connection that passes it. Needs
the servers of PostgreSQL.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

import replswitch
from cost.connection import queries
from cost.ratio import Batch, Row, Times, measure, ratio, repeated
from replswitch.testing import PostgreSQLPair

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = 16
ROUNDS = 30

QUERY = 1.10
"""The limit for the time of a query or a transaction, divided by the time on a bare connection."""

INSERT = 1.25
"""The same for an INSERT outside a transaction."""

TABLE = "CREATE TABLE message (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body TEXT)"


class Timed(psycopg.Connection[Any]):
    """A connection that waits for an answer for 20 seconds, as links to slaves do."""

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait."""
        return super().wait(gen, *args, **{"timeout": 20.0, **options})


def run(connection: Any, sql: str, *values: object) -> None:
    """Run a statement."""
    cursor = connection.cursor()
    cursor.execute(sql, values)
    cursor.close()


def inserts(connection: Any) -> Batch:
    """Make a batch of INSERTs."""
    return repeated(partial(run, connection, "INSERT INTO message (body) VALUES (%s)", "hello"))


def transaction(connection: Any) -> None:
    """Run a transaction of three statements. With psycopg, the first one begins it."""
    run(connection, "SELECT body FROM message WHERE id = %s", 1)
    run(connection, "INSERT INTO message (body) VALUES (%s)", "hello")
    run(connection, "UPDATE message SET body = %s WHERE id = %s", "hello", 1)
    connection.commit()


def switched_transaction(db: Any) -> None:
    """Run the same through connect()."""
    db.begin()
    transaction(db)


def bare(settings: dict[str, Any], kind: Any = psycopg.Connection, *, autocommit: bool = True) -> Any:
    """Open a connection of psycopg's own."""
    return kind.connect(**settings, autocommit=autocommit)


def groups(master: dict[str, Any], slave: dict[str, Any]) -> Iterator[Times]:
    """Measure what is compared with each other together, each time on new connections."""
    with bare(master) as one, bare(master) as another:
        yield measure({"one": queries(one), "another": queries(another)}, ROUNDS)
    with replswitch.connect(master, [slave], driver="psycopg") as db, bare(master) as one:
        yield measure({"bare": queries(one), "master": queries(db)}, ROUNDS)
    with (
        replswitch.connect(master, [slave], driver="psycopg") as db,
        bare(slave) as one,
        bare(slave, Timed) as timed,
        db.use_slave(),
    ):
        sides = {"bare slave": queries(one), "timed slave": queries(timed), "slave": queries(db)}
        yield measure(sides, ROUNDS)
    with replswitch.connect(master, [slave], driver="psycopg") as db, bare(master) as one:
        yield measure({"bare insert": inserts(one), "insert": inserts(db)}, ROUNDS)
    with replswitch.connect(master, [slave], driver="psycopg") as db, bare(master, autocommit=False) as one:
        sides = {
            "bare transaction": repeated(partial(transaction, one)),
            "transaction": repeated(partial(switched_transaction, db)),
        }
        yield measure(sides, ROUNDS)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    times: Times = {}
    with PostgreSQLPair() as pair:
        with pair.connect() as connection:
            connection.execute(TABLE)
        pair.wait_caught_up()
        for _ in range(GROUPS):
            for group in groups(pair.master, pair.slaves[0]):
                for name, batches in group.items():
                    times.setdefault(name, []).extend(batches)
    yield ratio("a bare query of psycopg / the same on another connection", times, "another", "one")
    yield ratio("  with a time-out / without", times, "timed slave", "bare slave")
    yield ratio("a query through connect() / a bare one, master state", times, "master", "bare", limit=QUERY)
    yield ratio("  slave state / a bare one with a time-out", times, "slave", "timed slave", limit=QUERY)
    yield ratio("  slave state / a bare one without", times, "slave", "bare slave")
    yield ratio("an INSERT outside a transaction / a bare one", times, "insert", "bare insert", limit=INSERT)
    yield ratio("a transaction / a bare one", times, "transaction", "bare transaction", limit=QUERY)
