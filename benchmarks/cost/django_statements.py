"""How many round trips Django takes for each request with our backend and middleware, against stock Django.

The servers count them, master and slave together: statements (`Questions` of SHOW GLOBAL STATUS) and pings, which are
told with other commands that are no statements (`Com_admin_commands`). Connections are open before anything is
counted. "Atomic" is ATOMIC_REQUESTS, "health checks" CONN_HEALTH_CHECKS; the limit is stock Django's own number. Needs
mariadbd, mysqlclient, PyMySQL and django-replicated.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from cost.django_project import OURS, REPLICATED, STOCK
from cost.django_side import DRIVERS, Worker, django_pair, project_of, workers
from cost.ratio import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replswitch.testing import MariaDBPair

REQUESTS = 50

#: The requests of one visitor.
REQUESTS_OF = {"GET": ["GET"], "POST": ["POST"], "GET after POST": ["POST", "GET"]}


class Counter:
    """Counts the statements on both servers of a pair, without those of the counting itself."""

    def __init__(self, pair: MariaDBPair) -> None:
        self._connections = [pair.admin("master"), pair.admin("slave")]

    def _total(self) -> int:
        total = 0
        for connection in self._connections:
            with connection.cursor() as cursor:
                cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_admin_commands')")
                total += sum(int(value) for _, value in cursor.fetchall())
        return total

    def a_request(self, worker: Worker, methods: Sequence[str]) -> float:
        """Return the round trips for a turn of ``methods``, sent by one visitor."""
        for warm in ["GET"], methods:  # open what there is to open
            worker.do("visit", methods=warm, times=1)
        started = self._total()
        worker.do("visit", methods=methods, times=REQUESTS)
        return (self._total() - started - len(self._connections)) / REQUESTS

    def close(self) -> None:
        """Close the connections that count."""
        for connection in self._connections:
            connection.close()


def compared(pair: MariaDBPair, counter: Counter, driver: str, title: str, **settings: bool) -> Iterator[Row]:
    """Yield the rows of one kind of project."""
    projects = [project_of(pair, name, driver, **settings) for name in (STOCK, OURS, REPLICATED)]
    with workers(projects) as (stock, ours, replicated):
        for name, methods in REQUESTS_OF.items():
            own, figure, theirs = (counter.a_request(worker, methods) for worker in (stock, ours, replicated))
            detail = f"stock Django {own:g}, django-replicated {theirs:g}"
            yield Row(f"round trips, {driver}, {name}{title}", figure, own, detail)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair, closing(Counter(pair)) as counter:
        for driver in DRIVERS:
            yield from compared(pair, counter, driver, "")
            yield from compared(pair, counter, driver, ", atomic", atomic=True)
            yield from compared(pair, counter, driver, ", health checks", health_checks=True)
