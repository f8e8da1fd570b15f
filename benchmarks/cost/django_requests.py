"""What a request costs with our middleware and backend, against stock Django's and other packages'.

Without a query: what each middleware adds to a GET, in one process; nothing waits there, so it is the processor's time
that is told. With one query, an ORM get(): whole projects, each in a process of its own, that take turns; connections
stay open, and Django's own handler serves. Two processes differ by themselves, so there are several groups of fresh
ones, and the ratio of two with stock Django stands in the table too. django-replicated has its router with the slave,
and pings it in each request. Needs mariadbd, mysqlclient, PyMySQL, django-replicated and django-multidb-router.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from cost.django_project import MULTIDB, OURS, REPLICATED, STOCK
from cost.django_side import DRIVERS, Worker, alternate, django_pair, extend, project_of, workers
from cost.ratio import Row, Times, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.testing import MariaDBPair

ROUNDS_ALONE = 300
GROUPS = 8
ROUNDS = 20

ADDS = 1
"""The limit: the time that our middleware adds, as a part of that of django-replicated."""

REQUEST = 1.05
"""The most that a request with one query may take, of stock Django's."""

PROJECTS = (STOCK, OURS, REPLICATED, MULTIDB)

#: A second process with stock Django.
ANOTHER = "another"


def middleware(pair: MariaDBPair) -> Iterator[Row]:
    """Yield the time that the middleware adds to a request without a query."""
    with Worker(project_of(pair, REPLICATED)) as worker:  # with its router, which its middleware asks for
        sides = {name: (worker, f"serve /empty {name}") for name in PROJECTS}
        _, worked = alternate(sides, ROUNDS_ALONE)
    name = "no query: our middleware adds / django-replicated's adds"
    yield ratio(name, worked, OURS, REPLICATED, floor=STOCK, limit=ADDS)
    yield ratio("  django-multidb-router's adds / django-replicated's adds", worked, MULTIDB, REPLICATED, floor=STOCK)
    yield ratio("  the request with ours / without", worked, OURS, STOCK)


def requests(pair: MariaDBPair, driver: str) -> tuple[Times, Times]:
    """Measure whole requests in all projects: what went by, and what the processor worked."""
    elapsed: Times = {}
    worked: Times = {}
    for group in range(GROUPS):
        built_with = {name: name for name in PROJECTS} | {ANOTHER: STOCK}
        projects = [project_of(pair, name, driver) for name in built_with.values()]
        with workers(projects, seed=group) as processes:
            sides = {name: (process, "serve /message") for name, process in zip(built_with, processes, strict=True)}
            for times, more in zip((elapsed, worked), alternate(sides, ROUNDS), strict=True):
                extend(times, more)
    return elapsed, worked


def difference(name: str, times: Times, ours: str, against: str) -> Row:
    """Make a row of how many microseconds one side takes more than another: the median of the rounds' differences."""
    low, middle, high = statistics.quantiles((a - b) * 1e6 for a, b in zip(times[ours], times[against], strict=True))
    a, b = (statistics.median(times[side]) * 1e6 for side in (ours, against))
    return Row(name, middle, detail=f"{a:.0f} µs against {b:.0f} µs; half the rounds {low:.0f} to {high:.0f}")


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair:
        yield from middleware(pair)
        for driver in DRIVERS:
            elapsed, worked = requests(pair, driver)
            yield ratio(f"one query, {driver}: stock Django / stock Django", elapsed, ANOTHER, STOCK)
            yield ratio("  ours / stock Django", elapsed, OURS, STOCK, limit=REQUEST)
            yield ratio("    the processor's time in it", worked, OURS, STOCK)
            yield difference("  ours - django-replicated's, µs", elapsed, OURS, REPLICATED)
            yield difference("    the processor's time in it", worked, OURS, REPLICATED)
            yield difference("  ours - django-multidb-router's, µs", elapsed, OURS, MULTIDB)
