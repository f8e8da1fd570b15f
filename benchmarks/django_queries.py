"""What a query through our Django backend costs, against the same query through django.db.backends.mysql.

Both are in one process, with the same driver, on the same server: an ORM get() by the primary key, and a cursor with
SELECT 1 and fetchone(). Two connections of stock Django differ by themselves, so each group of batches opens fresh
ones, and their ratio stands in the table too. Needs mariadbd, mysqlclient and PyMySQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_project import OURS
from django_side import DRIVERS, Worker, django_pair, project_of
from ratio import Row, Times, ratio, run

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = 12
ROUNDS = 20
LIMIT = 1.05

KINDS = {"orm": "get()", "cursor": "SELECT 1"}


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair:
        for driver in DRIVERS:
            times: Times = {}
            with Worker(project_of(pair, OURS, driver)) as worker:
                for _ in range(GROUPS):
                    for kind in KINDS:
                        # Two groups, because two sides of one must be on one server.
                        for group in (
                            [f"{kind} stock_slave stock", f"{kind} another_slave stock", f"{kind} default slave"],
                            [f"{kind} stock stock", f"{kind} default master"],
                        ):
                            for side, batches in worker.do("measure", sides=group, rounds=ROUNDS).items():
                                times.setdefault(side, []).extend(batches)
            for kind, name in KINDS.items():
                stock = f"{kind} stock_slave stock"
                yield ratio(f"{driver}, {name}: stock / stock", times, f"{kind} another_slave stock", stock)
                yield ratio("  ours / stock, slave state", times, f"{kind} default slave", stock, limit=LIMIT)
                yield ratio(
                    "  ours / stock, master state", times, f"{kind} default master", f"{kind} stock stock", limit=LIMIT
                )


if __name__ == "__main__":
    run(__doc__, rows)
