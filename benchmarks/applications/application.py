"""Runs an application twice on a replicated pair: on the stock engine, and on ours with a lag."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from applications import process
from applications.browser import Browser
from applications.comparison import Comparison, check_stock, compare
from applications.reads import Reads, counted
from applications.visit import Visit
from replswitch.testing import MariaDBPair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from applications.environments import Environment

    Visitor = Callable[[Visit], None]

#: The two sides; the stock engine knows the master alone.
STOCK: Final = "stock"
OURS: Final = "replswitch"

#: Seconds by which a slave may exceed its lag.
BEHIND: Final = 2

#: Seconds for a slave to replicate the initial data of an application.
FILLED: Final = 120


@dataclass(frozen=True, slots=True)
class Application:
    """An application that visitors can be sent to.

    Attributes:
        title: its name in the output.
        environment: the packages for it.
        fill: the module that creates its tables and data; it runs once, on the master.
        serve: the module that serves it.
        visitors: their visits, which run in parallel.
    """

    title: str
    environment: Environment
    fill: str
    serve: str
    visitors: Sequence[Visitor]


@dataclass(frozen=True, slots=True)
class Plan:
    """How an application is run.

    Attributes:
        cache: where environments are kept.
        logs: the folder of the processes' logs.
        lag: of the slaves, in seconds.
        driver: ``mysqlclient`` or ``pymysql``.
        keeps_marker: see `Browser`.
    """

    cache: Path
    logs: Path
    lag: int
    driver: str
    keeps_marker: bool = True


@dataclass(slots=True)
class Run:
    """One side, as it was.

    Attributes:
        visits: of all visitors.
        reads: where the servers were read.
    """

    visits: list[Visit] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)


def run(application: Application, plan: Plan) -> tuple[Comparison, Run, Run]:
    """Run both sides; return how they differ, the stock side, and ours.

    Raises:
        MissingError: the application cannot be installed.
        ProcessError: it did not start.
        ScenarioError: its visitors did not get along on the stock engine.
    """
    python = application.environment.python(plan.cache)
    stock = _side(application, plan, python, STOCK)
    check_stock(stock.visits)
    ours = _side(application, plan, python, OURS)
    return compare(stock.visits, ours.visits), stock, ours


def _side(application: Application, plan: Plan, python: Path, side: str) -> Run:
    name = f"{application.environment.name}-{side}"
    folder = plan.logs / name
    folder.mkdir(parents=True, exist_ok=True)
    with MariaDBPair() as pair, ExitStack() as stack:
        wanted: dict[str, Any] = {"master": pair.master, "slaves": [], "driver": plan.driver, "folder": str(folder)}
        tell(f"{name}: making its tables")
        process.do(python, application.fill, wanted, folder / "fill.log")
        pair.wait_caught_up(FILLED)
        pair.lag = plan.lag
        if side == OURS:
            wanted["slaves"] = pair.slaves
        base = stack.enter_context(process.serving(python, application.serve, wanted, folder / "serve.log"))
        tell(f"{name}: {len(application.visitors)} visitors, with a lag of {plan.lag} s")
        with counted(pair) as reads:
            browsers = [Browser(base, keeps_marker=plan.keeps_marker) for _ in application.visitors]
            visits = [Visit(browser, number, plan.lag + BEHIND) for number, browser in enumerate(browsers, 1)]
            with ThreadPoolExecutor(len(visits)) as threads:
                done = [threads.submit(go, visit) for go, visit in zip(application.visitors, visits, strict=True)]
            for each in done:
                each.result()
    return Run(visits, reads)


def tell(what: str) -> None:
    """Print the progress."""
    print(what, file=sys.stderr, flush=True)
