"""How many more reads a second two and four slaves serve than one does, through connect() and in Django.

Each slave stands behind a proxy (`slow_servers`) at which queries queue and each takes 20 ms. So one slave serves 50
reads a second, on any machine, and n slaves n times as many, if each always has something to do. Reads are
scopes of their own: blocks of use_slave(), and GETs in Django with one get() of the ORM. Each chooses its slave by
itself, so at times one has a queue and another none; with so many threads that takes a few hundredths. Behind all
proxies is the pair's one slave. With PyMySQL; needs mariadbd.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import replswitch
from cost.django_project import OURS, Project
from cost.django_side import DRIVERS, Worker, django_pair
from cost.ratio import Row, rate
from cost.slow_servers import slow_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch import Connection
    from replswitch.testing import MariaDBPair

SERVICE_TIME = 0.02
"""Seconds that a query takes at its slave."""

SLAVES = (1, 2, 4)

THREADS = 12
"""Threads for each slave."""

WARM, SECONDS = 2.0, 4.0
"""Seconds before those in which reads are counted, and those."""

LEAST = 0.9
"""The least share of n times the reads that one slave serves."""

# The proxies read the packets, so these must not be encrypted.
SETTINGS = {"ssl_disabled": True}


def read(db: Connection) -> None:
    """Read once, in a scope of its own."""
    with db.use_slave():
        cursor = db.cursor()
        cursor.execute("SELECT body FROM benchmark_message WHERE id = 1")
        cursor.fetchone()
        cursor.close()


def through_connect(master: dict[str, Any], slaves: list[dict[str, Any]]) -> float:
    """Return the reads a second through connect()."""
    threads = THREADS * len(slaves)
    with replswitch.connect(master, slaves, pool_size=threads) as db:
        return rate(partial(read, db), threads, WARM, SECONDS)


def through_django(master: dict[str, Any], slaves: list[dict[str, Any]]) -> float:
    """Return the reads a second in Django."""
    project = Project(OURS, DRIVERS["PyMySQL"], master, slaves[0], more_slaves=slaves[1:], options=SETTINGS)
    with Worker(project) as worker:
        return float(worker.do("rate", threads=THREADS * len(slaves), warm=WARM, seconds=SECONDS))


def compared(pair: MariaDBPair, name: str, reads: Callable[..., float], settings: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of one side."""
    one = 0.0
    for count in SLAVES:
        with slow_servers(pair.slaves[0]["port"], count, SERVICE_TIME) as ports:
            slaves = [pair.slaves[0] | settings | {"port": port} for port in ports]
            figure = reads(pair.master | settings, slaves)
        if count == 1:
            one = figure
            yield Row(f"reads a second with 1 slave, {name}", one, detail=f"it can serve {1 / SERVICE_TIME:g}")
        else:
            detail = f"{figure:.1f} reads a second"
            yield Row(f"  {count} slaves / 1 slave", figure / one, detail=detail, least=LEAST * count)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with django_pair() as pair:
        with pair.admin("slave") as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = 1000")  # each thread in Django has one to each slave
        yield from compared(pair, "connect()", through_connect, SETTINGS)
        yield from compared(pair, "Django", through_django, {})
