"""Chaos: servers die, come back, lag and change places, and no visitor notices.

A master and two slaves behind proxies, an application in a threaded WSGI server, 8 clients that read and write
without a pause (50 ms in a short run), and one fault after another. At the end the script prints figures, and what must
not happen: a failed read (except one that must see a write which no living server has), a missed own write, a write
that was lost or carried out twice, a request that took too long, a server that is not used again, memory or connections
that grew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from shared.product import PRODUCTS

from chaos.faults import FAULTS
from chaos.run import Run

SIDES = {"connect": tuple(PRODUCTS), "django": tuple(PRODUCTS), "flask": ("MariaDB", "MySQL")}
"""The sides, and the products that each runs on."""

DRIVERS = sorted({driver for product in PRODUCTS.values() for driver in product.drivers})
PARTS = {f"{part}/{parts}": FAULTS[part - 1 :: parts] for parts in (1, 2, 3) for part in range(1, parts + 1)}

SHOWN = 20
"""The number of faults that are printed."""

SHORT = 1.0
"""Seconds that a fault lasts in a short run."""

PAUSE = 0.05
"""Seconds that a client waits between two requests of a short run, so that other tests get processor time."""


def main() -> int:
    """Read the command line, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="the time with faults (10); each comes at least once")
    parser.add_argument("--hold", type=float, default=4, help="seconds that a fault lasts (4)")
    parser.add_argument("--seed", type=int, default=None, help="which faults come when; a run prints its own")
    parser.add_argument("--side", choices=SIDES, default="connect", help="the kind of application")
    parser.add_argument("--product", choices=PRODUCTS, default="MariaDB", help="the product of the servers (MariaDB)")
    parser.add_argument("--driver", choices=DRIVERS, help="the driver (pymysql, or psycopg on PostgreSQL)")
    parser.add_argument("--short", action="store_true", help="every fault once, as briefly as it can be noticed")
    parser.add_argument(
        "--part", choices=PARTS, default="1/1", help="all kinds of faults (1/1), or every second or third"
    )
    parser.add_argument("--log", type=Path, help="the log file of the application; none by default")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if something was wrong")
    given = parser.parse_args()
    product = PRODUCTS[given.product]
    driver = given.driver or product.drivers[0]
    if given.product not in SIDES[given.side]:
        parser.error(f"the side {given.side} does not run on {given.product}")
    if driver not in product.drivers:
        parser.error(f"{driver} is no driver of {given.product}")
    seed = int(time.time()) if given.seed is None else given.seed
    seconds, hold, pause = (0, SHORT, PAUSE) if given.short else (given.minutes * 60, given.hold, 0.0)
    name = f"--product {given.product} --side {given.side} --driver {driver} --seed {seed}"
    tell(name)
    faults = PARTS[given.part]
    run = Run(given.side, driver, product, seconds=seconds, seed=seed, hold=hold, pause=pause, faults=faults, tell=tell)
    with given.log.open("w") if given.log else tempfile.TemporaryFile("w") as log:
        figures = run.go(log)
    for row, figure in figures.rows:
        print(f"{row:<58}{figure:>16}")
    for fault in figures.faults[:SHOWN]:
        print(f"WRONG: {fault}")
    print(f"{len(figures.faults)} wrong, with {name}")
    return 1 if given.check and figures.faults else 0


def tell(text: str) -> None:
    """Print the progress."""
    print(text, file=sys.stderr, flush=True)
