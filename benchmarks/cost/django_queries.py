"""What a query through our Django backend costs, against the same query through Django's own.

A query is a get() of the ORM by the primary key, or a cursor with SELECT 1 and fetchone(); with each driver, on a real
pair of servers of MariaDB or PostgreSQL. The sides are processes of their own that take turns: in one process the
interpreter would adapt itself to one of the two backends. Two processes differ by themselves, so there are several
groups of fresh ones, and the ratio of two with stock Django stands in the table too. What the process itself works is
told apart: the rest, the server and the way to it, is one and the same for both sides. Needs mariadbd, mysqlclient and
PyMySQL, the servers of PostgreSQL, and psycopg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cost.django_project import OURS, STOCK
from cost.django_side import DRIVERS, alternate, django_pair, extend, project_of, workers
from cost.ratio import Row, Times, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = 5
ROUNDS = 25

LIMIT = 1.03
"""The most that a get() may take of stock Django's."""

PSYCOPG = 1.05
"""The same with psycopg, where each query in master state also asks whether it has written."""

#: What a query is called. A cursor with SELECT 1 does next to nothing besides, and only informs.
KINDS: dict[str, str] = {"orm": "get()", "cursor": "SELECT 1"}


def measured(pair: Any, driver: str, kind: str) -> tuple[Times, Times]:
    """Measure one kind of query with one driver: what went by, and what the processor worked."""
    elapsed: Times = {}
    worked: Times = {}
    for group in range(GROUPS):
        projects = [project_of(pair, built_with, driver) for built_with in (STOCK, STOCK, OURS)]
        with workers(projects, seed=group) as (one, another, ours):
            # Two groups of sides, because those of one must be on one server.
            for sides in (
                {
                    "stock slave": (one, f"{kind} stock_slave stock"),
                    "another": (another, f"{kind} stock_slave stock"),
                    "slave": (ours, f"{kind} default slave"),
                },
                {"stock master": (one, f"{kind} stock stock"), "master": (ours, f"{kind} default master")},
            ):
                for times, more in zip((elapsed, worked), alternate(sides, ROUNDS), strict=True):
                    extend(times, more)
    return elapsed, worked


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair:
        for driver in DRIVERS:
            yield from rows_of(pair, driver, LIMIT)
    with django_pair("psycopg") as pair:
        yield from rows_of(pair, "psycopg", PSYCOPG)


def rows_of(pair: Any, driver: str, limit: float) -> Iterator[Row]:
    """Yield the rows of a driver."""
    for kind, name in KINDS.items():
        elapsed, worked = measured(pair, driver, kind)
        most = limit if kind == "orm" else None
        for title, ours, stock, at_most in (
            (f"{name}, {driver}: stock Django / stock Django", "another", "stock slave", None),
            ("  our backend / stock Django, slave state", "slave", "stock slave", most),
            ("  our backend / stock Django, master state", "master", "stock master", most),
        ):
            yield ratio(title, elapsed, ours, stock, limit=at_most)
            yield ratio("    the processor's time in it", worked, ours, stock)
