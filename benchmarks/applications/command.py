"""Real applications on a replicated pair: what fails with replswitch and works without it, while the slave lags.

A django-oscar shop with ATOMIC_REQUESTS, and the Flask-SQLAlchemy applications ihatemoney and FlaskBB, are visited
twice by the same visitors: on the stock engine, which knows the master alone, and on ours, with the settings of
docs/django.md and docs/flask.md. The tests of a Django package run on both engines.

A request is worse when it is answered with another status. An own write is missed when a page is no error, and lacks
what its visitor has just done. Reads are counted in the servers' own logs: SELECTs of tables, not locking ones.

The applications are fetched from the package index once. Needs mariadbd.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from applications import application, forum_visitors, money_visitors, package, shop_visitors
from applications.application import Application, Plan
from applications.comparison import ScenarioError
from applications.environments import Environment, default_cache
from applications.interpreters import InterpreterError, MissingError
from applications.process import ProcessError
from replswitch.testing.errors import PairError

if TYPE_CHECKING:
    from collections.abc import Callable

#: The drivers, and their packages.
DRIVERS: Final = {"mysqlclient": "mysqlclient>=2.2.1", "pymysql": "PyMySQL>=1.1.1,<2"}

#: The number of faults of each kind that are printed.
SHOWN: Final = 15

#: Lines of a traceback that are shown.
LINES: Final = 25

#: The exit code if something is not available.
MISSING: Final = 3


def shop(driver: str) -> Application:
    """Return the Django shop."""
    return Application(
        "django-oscar 4.2.1 with ATOMIC_REQUESTS",
        Environment("shop", ("django-oscar[sorl-thumbnail]==4.2.1", "Whoosh>=2.7,<2.8", DRIVERS[driver])),
        "applications.shop_fill",
        "applications.shop_serve",
        shop_visitors.VISITORS,
    )


def money(driver: str) -> Application:
    """Return the Flask-SQLAlchemy application."""
    return Application(
        "ihatemoney 7.2.1 on Flask-SQLAlchemy",
        Environment("flask", ("ihatemoney==7.2.1", DRIVERS[driver])),
        "applications.money_fill",
        "applications.money_serve",
        money_visitors.VISITORS,
    )


def forum(driver: str) -> Application:
    """Return FlaskBB, a Flask-SQLAlchemy application whose GETs write: they count views and visits."""
    return Application(
        "FlaskBB 2.2.0 on Flask-SQLAlchemy",
        Environment("forum", ("flaskbb==2.2.0", DRIVERS[driver]), minor=12),
        "applications.forum_fill",
        "applications.forum_serve",
        forum_visitors.VISITORS,
    )


def visit(made: Application, plan: Plan) -> int:
    """Run an application, print its figures, and return how much was wrong."""
    found, stock, ours = application.run(made, plan)
    print(f"{made.title}, {plan.driver}, {plan.lag} s of lag")
    row("requests with replswitch", found.requests)
    row("answered worse than with the stock engine", len(found.worse))
    row("steps left out, because a page before them was missing", len(found.left_out))
    row("own writes missed", len(found.missed))
    row("reads on the slave", f"{ours.reads.slave} of {ours.reads.master + ours.reads.slave} ({ours.reads.share:.1%})")
    row("reads on the slave with the stock engine", f"{stock.reads.slave} of {stock.reads.master + stock.reads.slave}")
    for kind, told in (("WORSE", found.worse), ("LEFT OUT", found.left_out), ("MISSED", found.missed)):
        some(kind, told)
    return len(found.worse) + len(found.left_out) + len(found.missed)


def tests(plan: Plan) -> int:
    """Run the tests of the package, print the outcomes, and return how many fail with our engine only."""
    stock, ours = package.run(plan, DRIVERS[plan.driver])
    worse = package.worse(stock, ours)
    print(f"tests of {package.NAME} {package.VERSION}, {plan.driver}, {plan.lag} s of lag")
    for name, run in (("the stock engine", stock), ("replswitch", ours)):
        told = f"{len(run.tests)}, {len(run.passed)} passed, {len(run.bad)} failed, {len(run.skipped)} skipped"
        row(f"with {name}", told)
    row("fail with replswitch, and not with the stock engine", len(worse))
    some("FAILS", [f"{test}\n{tail(told)}" for test, told in worse.items()])
    return len(worse)


def row(what: str, figure: object) -> None:
    """Print a figure."""
    print(f"  {what:<58}{figure!s:>22}")


def some(kind: str, told: list[str]) -> None:
    """Print some of the faults."""
    for each in told[:SHOWN]:
        print(f"  {kind}: {each}")
    if len(told) > SHOWN:
        print(f"  {kind}: and {len(told) - SHOWN} more")


def tail(traceback: str) -> str:
    """Return the end of a traceback."""
    return "\n".join(f"    {line}" for line in traceback.rstrip().splitlines()[-LINES:])


PARTS: Final[dict[str, Callable[[Plan], int]]] = {
    "shop": lambda plan: visit(shop(plan.driver), plan),
    "flask": lambda plan: visit(money(plan.driver), plan),
    "forum": lambda plan: visit(forum(plan.driver), plan),
    "package": tests,
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/applications",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Exit code: 0, or 1 with --check when something was wrong; 2 if a run did not come to its end,"
        f" {MISSING} if something is not available on this machine.",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is wrong")
    parser.add_argument("--only", choices=PARTS, action="append", help="one of the four; may be given again")
    parser.add_argument("--lag", type=int, default=3, metavar="SECONDS", help="of the slave (3)")
    parser.add_argument("--driver", choices=DRIVERS, default="mysqlclient", help="of the applications (mysqlclient)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where they are kept (%(default)s)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs of all processes there")
    parser.add_argument(
        "--no-marker",
        action="store_true",
        help="visitors throw replswitch's marker away: own writes must be missed then, or this script sees nothing",
    )
    return parser.parse_args()


def main() -> int:
    """Run what the command line selects. Return the exit code."""
    asked = arguments()
    wrong = 0
    try:
        with tempfile.TemporaryDirectory(prefix="applications-") as temporary:
            logs = (asked.logs or Path(temporary)).resolve()
            plan = Plan(asked.cache.resolve(), logs, asked.lag, asked.driver, keeps_marker=not asked.no_marker)
            for name in asked.only or PARTS:
                try:
                    wrong += PARTS[name](plan)
                except InterpreterError as error:
                    if asked.only:
                        raise
                    print(f"{name} is left out: {error}", file=sys.stderr)
    except MissingError as error:
        print(error, file=sys.stderr)
        return MISSING
    except (PairError, ProcessError, ScenarioError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("applications: stopped", file=sys.stderr)
        return 130
    return 1 if asked.check and wrong else 0
