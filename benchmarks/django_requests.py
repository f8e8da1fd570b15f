"""What a request costs with our middleware and backend, against django-replicated's and stock Django's.

Without a query: what each middleware adds to a GET, in one process; nothing waits there, so it is the processor's time
that is told. With one query, an ORM get(): whole projects, each
in a process of its own, that take turns; connections stay open, and Django's own handler serves. django-replicated
has its router with the slave; it pings the slave in each request, and what a ping costs is the way to another
processor, as a rule: so the servers run where the kernel puts them, as an application's do. Needs mariadbd,
mysqlclient, PyMySQL, django-replicated and django-multidb-router.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from django_project import MULTIDB, OURS, REPLICATED, STOCK
from django_side import DRIVERS, Worker, alternate, django_pair, extend, project_of, workers
from ratio import Row, Times, ratio, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.testing import MariaDBPair

ROUNDS_ALONE = 300
GROUPS = 8
ROUNDS = 20

#: How many microseconds a request with one query must cost less than django-replicated's.
LESS = 50

PROJECTS = (STOCK, OURS, REPLICATED, MULTIDB)


def middleware(pair: MariaDBPair) -> Iterator[Row]:
    """Yield what the middleware adds to a request without a query."""
    with Worker(project_of(pair, REPLICATED)) as worker:  # with its router, which its middleware asks for
        sides = {name: (worker, f"serve /empty {name}") for name in PROJECTS}
        _, worked = alternate(sides, ROUNDS_ALONE)
    name = "no query: our middleware adds / django-replicated's adds"
    yield ratio(name, worked, OURS, REPLICATED, floor=STOCK, limit=1)
    yield ratio("  django-multidb-router's adds / django-replicated's adds", worked, MULTIDB, REPLICATED, floor=STOCK)
    yield ratio("  the request with ours / without", worked, OURS, STOCK)


def requests(pair: MariaDBPair, driver: str) -> tuple[Times, Times]:
    """Measure whole requests in all projects: what went by, and what the processor worked."""
    elapsed: Times = {}
    worked: Times = {}
    for group in range(GROUPS):
        with workers([project_of(pair, name, driver) for name in PROJECTS], seed=group) as processes:
            sides = {name: (process, "serve /message") for name, process in zip(PROJECTS, processes, strict=True)}
            for times, more in zip((elapsed, worked), alternate(sides, ROUNDS), strict=True):
                extend(times, more)
    return elapsed, worked


def difference(name: str, times: Times, ours: str, against: str, limit: float | None = None) -> Row:
    """Make a row of how many microseconds one side takes more than another: the median of the rounds' differences."""
    low, middle, high = statistics.quantiles((a - b) * 1e6 for a, b in zip(times[ours], times[against], strict=True))
    a, b = (statistics.median(times[side]) * 1e6 for side in (ours, against))
    return Row(name, middle, limit, f"{a:.0f} µs against {b:.0f} µs; half the rounds {low:.0f} to {high:.0f}")


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair:
        yield from middleware(pair)
        for driver in DRIVERS:
            elapsed, worked = requests(pair, driver)
            name = f"one query, {driver}: ours - django-replicated's, µs"
            yield difference(name, elapsed, OURS, REPLICATED, limit=-LESS)
            yield difference("    the processor's time in it", worked, OURS, REPLICATED)
            yield difference("  ours - django-multidb-router's, µs", elapsed, OURS, MULTIDB)
            yield ratio("  ours / stock Django", elapsed, OURS, STOCK)
            yield ratio("    the processor's time in it", worked, OURS, STOCK)


if __name__ == "__main__":
    run(__doc__, rows, one_processor=False)
