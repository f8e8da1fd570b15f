"""Count missed own writes, and reads on the slave: with replswitch, with other packages, and with none.

The same visitors (a form with a redirect, POSTs answered with JSON, a page with XHRs, two POSTs at once; then a GET
every 100 ms) go to applications with replswitch, with other packages, and with plain Django that reads on the slave.
All run on one real pair of MariaDB servers (or of MySQL's or PostgreSQL's), at several lags and with replication
stopped.

A read is stale when it lacks a write of its visitor that was answered before the read was sent. It was possible on the
slave if the slave had all those writes by then; that is the ideal. A watcher finds out whether it had them: it looks at
the slave's table every few milliseconds over a connection of its own. The database reports which server served a read,
in the result of the query itself. So both are independent of the packages that are measured.

Needs mariadbd (or mysqld, or the servers of PostgreSQL), and the extra "bench".
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from shared.product import PRODUCTS

from consistency.chart import ChartError, draw, load
from consistency.ledger import MASTER, SLAVE, Ledger
from consistency.report import Results, SaveError, around, machine, name_of, problems, report, save
from consistency.sides import SIDES, Side, SideError
from consistency.visitors import Kind, Site, Visitor
from consistency.watcher import Watcher
from replswitch.testing.errors import PairError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replswitch.testing.pair import ReplicatedPair

STOPPED = "stopped"
LAGS = ("0", "1", "2", "10", STOPPED)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run.

    Attributes:
        sides: the sides to compare.
        lags: seconds; None is replication that has stopped.
        kinds: the visitors.
        visitors: how many of each kind, for each side.
        together: how many sides are visited at the same time: a machine that is too busy makes everything late.
        product: the product of the servers; a key of `PRODUCTS`.
        synchronous_commit: PostgreSQL's setting of the application; None for that of the server.
        seconds: how long a visit lasts, at least.
    """

    sides: Sequence[Side]
    lags: Sequence[int | None]
    kinds: Sequence[Kind]
    visitors: int
    seconds: float
    together: int = 3
    product: str = "MariaDB"
    synchronous_commit: str | None = None

    def seconds_at(self, lag: int | None) -> float:
        """Return how long visits last at a lag: so long that the slave gets there about half-way."""
        if lag is not None:
            return max(self.seconds, 2.5 * lag)
        return max([self.seconds, *(self.seconds_at(other) for other in self.lags if other is not None)])

    @property
    def all_visitors(self) -> int:
        """How many visitors there are, from the first lag to the last."""
        return len(self.lags) * len(self.sides) * len(self.kinds) * self.visitors


def run(plan: Plan) -> Results:
    """Run everything. Return the results for each side, lag and kind of visitors."""
    product = PRODUCTS[plan.product]
    options = {} if plan.synchronous_commit is None else {"options": f"-c synchronous_commit={plan.synchronous_commit}"}
    with product.pair() as pair, ExitStack() as stack:
        make_table(pair, plan)
        servers = {int(ask(pair, name, product.server)): side for name, side in (("master", MASTER), ("slave", SLAVE))}
        results = Results()
        results.server = f"{plan.product} {ask(pair, 'master', product.version).partition('-')[0]}"
        sites = {}
        for side in plan.sides:
            tell(f"starting {side.label}")
            sites[side] = Site(stack.enter_context(side.running(pair, plan.product, options)), servers)
        numbers = count()
        for lag in plan.lags:
            for first in range(0, len(plan.sides), plan.together):
                group = plan.sides[first : first + plan.together]
                run_at(lag, plan, pair, {side: sites[side] for side in group}, numbers, results)
    return results


def run_at(
    lag: int | None, plan: Plan, pair: ReplicatedPair, sites: dict[Side, Site], numbers: Iterator[int], results: Results
) -> None:
    """Let the visitors of one lag visit some sides, at the same time."""
    ledger, seconds = Ledger(), plan.seconds_at(lag)
    visitors = {
        (side, kind): [Visitor(site, ledger, number, kind) for number in islice(numbers, plan.visitors)]
        for side, site in sites.items()
        for kind in plan.kinds
    }
    tell(f"{name_of(lag)}: {sum(map(len, visitors.values()))} visitors at a time, for {seconds:g} s")
    if lag is None:
        pair.stop_slave()
    else:
        pair.lag = lag
    # MariaDB lags by whole seconds of the clock, so it matters when in a second somebody writes: each group of sides
    # begins with a second, and the visitors of a kind spread over it.
    time.sleep(-time.time() % 1)
    threads = []
    for (_, kind), same in visitors.items():
        for place, visitor in enumerate(same):
            wait = (place + plan.kinds.index(kind) / len(plan.kinds)) / len(same)
            threads.append(threading.Timer(wait, visitor.visit, [seconds]))
            threads[-1].daemon = True  # Ctrl-C does not wait for them
    first = min(visitor.number for same in visitors.values() for visitor in same)
    with Watcher(pair, first, ledger.appeared) as watcher:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    pair.reset()
    results.delays[lag] += ledger.delays
    results.longest_look = max(results.longest_look, watcher.longest)
    for failure in ledger.failures[:5]:
        tell(f"  FAILED: {failure}")
    for (side, kind), same in visitors.items():
        results.add(side, lag, kind, ledger.tally({visitor.number for visitor in same}))
    for side in sites:
        tally = results.at(side, lag)
        stale, on_slave, ideal = (f"{share:.1%}" for share in (tally.stale_share, tally.slave_share, tally.ideal))
        tell(f"  {side.label}: {stale} stale, {on_slave} on the slave of possible {ideal}")


def make_table(pair: ReplicatedPair, plan: Plan) -> None:
    """Create the table, with a first row for each visitor: each row of a read names its server."""
    rows = [(number, 0) for number in range(plan.all_visitors)]
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE entry (id {PRODUCTS[plan.product].key}, visitor INT NOT NULL, number INT NOT NULL,"
            " UNIQUE (visitor, number))"
        )
        cursor.executemany("INSERT INTO entry (visitor, number) VALUES (%s, %s)", rows)
    pair.wait_caught_up()


def ask(pair: ReplicatedPair, name: str, expression: str) -> str:
    """Return the value of an expression on a server."""
    with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression}")
        ((value,),) = cursor.fetchall()
        return str(value)


def tell(what: str) -> None:
    """Print the progress."""
    print(what, file=sys.stderr, flush=True)


def whole_lag(text: str) -> int | None:
    """Read a lag from the command line."""
    if text == STOPPED:
        return None
    if not text.isdecimal() or int(text) > 600:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no lag: a whole number of seconds up to 600 (servers lag by whole seconds), or {STOPPED!r}"
        )
    return int(text)


def number_above_0(text: str) -> int:
    """Read a number from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sides = {side.name: side for side in SIDES}
    kinds = {kind.name.lower(): kind for kind in Kind}
    parser.add_argument("--lags", nargs="+", type=whole_lag, metavar="SECONDS", help=f"default: {' '.join(LAGS)}")
    parser.add_argument("--setups", dest="sides", nargs="+", choices=sides, help="default: all that the product has")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds), help="of visitors; default: all")
    parser.add_argument("--visitors", type=number_above_0, metavar="N", help="of each kind, on each side; default: 3")
    parser.add_argument(
        "--seconds", type=number_above_0, default=5, metavar="N", help="a visit's; 2.5 times the lag if that is longer"
    )
    parser.add_argument(
        "--together", type=number_above_0, default=3, metavar="N", help="setups at the same time; default: 3"
    )
    parser.add_argument(
        "--product", choices=PRODUCTS, default="MariaDB", help="the product of the servers; default: MariaDB"
    )
    parser.add_argument(
        "--synchronous-commit", choices=("on", "off"), help="of the applications on PostgreSQL; default: on"
    )
    parser.add_argument("--quick", action="store_true", help="lags 0, 2 and stopped, 1 visitor of each kind")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write consistency.md and consistency.svg there")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when replswitch misses its limits")
    parsed = parser.parse_args(argv)
    if parsed.product != "PostgreSQL" and parsed.synchronous_commit is not None:
        parser.error("--synchronous-commit is a setting of PostgreSQL")
    for name in parsed.sides or ():
        if parsed.product not in sides[name].products:
            parser.error(f"the side {name} does not run on {parsed.product}")
    running = [side for side in SIDES if parsed.product in side.products and side.name in (parsed.sides or sides)]
    default = ("0", "2", STOPPED) if parsed.quick else LAGS
    parsed.plan = Plan(
        running,
        parsed.lags or list(map(whole_lag, default)),
        [kind for name, kind in kinds.items() if name in parsed.kinds],
        parsed.visitors or (1 if parsed.quick else 3),
        parsed.seconds,
        len(sides) if parsed.quick else parsed.together,
        parsed.product,
        parsed.synchronous_commit,
    )
    return parsed


def main() -> int:
    """Run what the command line selects. Return the exit code."""
    asked = arguments()
    page = None if asked.out is None else asked.out / "consistency.md"
    try:
        if page is not None:  # before the minutes that the run takes
            page.parent.mkdir(parents=True, exist_ok=True)
            around(page)
            load()
        results = run(asked.plan)
        text = report(results, machine(results))
        print(text)
        if page is not None:
            save(page, text)
            draw(results, page.with_suffix(".svg"))
    except (ChartError, OSError, PairError, SaveError, SideError) as error:
        tell(f"consistency: {error}")
        return 2
    except KeyboardInterrupt:
        tell("consistency: stopped")
        return 130
    missed = problems(results)
    for problem in missed:
        tell(f"MISSED: {problem}")
    return 1 if asked.check and missed else 0
