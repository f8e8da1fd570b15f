"""Applications under servers that fork: no visitor gets another's answer, no connection is shared.

One small application for each side (connect(), Django's backend, Flask's extension), with each driver, on a real pair
of MariaDB servers with a lag, under gunicorn, uWSGI and waitress. It opens connections to the master and to the slave
when it is imported, and where the server imports first and forks then, the processes inherit them. Then visitors post,
follow the redirect and read, a dozen at a time. What is counted, and must be 0 but for the first and the last two:

  requests  all that were sent, those that warm the application up included
  foreign   answers of another visitor: each request sends a text that the database must send back, and each visitor's
            rows have a token of its own
  stale     reads that missed a write of their visitor
  failed    requests without an answer, or with an error
  shared    connections with queries of two processes, by CONNECTION_ID()
  ended     connections opened before the fork that the parent has lost, also when one of its processes has ended
  links     connections at the servers (SHOW PROCESSLIST) after warming up, and in the end, which must not be more
            (with greenlets: or not more than the pools may keep)
  reads     the share of them that the slave served; both servers must have had some

Needs mariadbd, and the extra "bench". The application servers are installed into a virtual environment
of their own, once; uWSGI is compiled.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

from processes.installed import Installed, default_folder
from processes.pages import TABLE
from processes.run import Combination, Figures, run
from processes.servers import VARIANTS
from replswitch.testing import MariaDBPair, PairError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES: Final = ("connect", "django", "flask")
DRIVERS: Final = ("pymysql", "mysqlclient")

HEAD: Final = "requests foreign stale failed shared ended links reads"
WIDTHS: Final = (25, 20)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line selects. Return the exit code."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers would outlive this process
    installed = Installed(given.venv)
    combinations = [
        Combination(variant, side, driver)
        for variant, side, driver in product(VARIANTS, SIDES, DRIVERS)
        if variant.name in given.only and side in given.side and driver in given.driver
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            wrong = _run_all(combinations, installed, given.requests, given.lag, given.log or Path(folder))
    except (OSError, PairError) as error:
        tell(f"processes: {error}")
        return 2
    except KeyboardInterrupt:
        tell("processes: stopped")
        return 130
    for figures in wrong:
        for fault in figures.faults:
            print(f"WRONG: {_name(figures.combination)}: {fault}")
    print(f"{len(wrong)} of {len(combinations)} wrong")
    return 1 if given.check and wrong else 0


def _run_all(
    combinations: Sequence[Combination], installed: Installed, requests: int, lag: int, logs: Path
) -> list[Figures]:
    """Run all, print a row for each, and return those that were wrong."""
    logs.mkdir(parents=True, exist_ok=True)
    wrong = []
    with MariaDBPair() as pair:
        with closing(pair.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
        pair.wait_caught_up()
        pair.lag = lag
        print(_line("server", "side", HEAD.split()), flush=True)
        print(_line("---", "---", ["---:"] * len(HEAD.split())), flush=True)
        for number, combination in enumerate(combinations, 1):
            tell(f"{number} of {len(combinations)}: {_name(combination)}")
            log = logs / f"{_name(combination).replace(', ', '-')}.log"
            figures = run(combination, pair, installed, requests=requests, log=log)
            print(_row(figures), flush=True)
            if figures.faults:
                wrong.append(figures)
                for text in (*figures.faults, *figures.seen.examples, figures.log):
                    tell(f"  {text}")
    return wrong


def _name(combination: Combination) -> str:
    return f"{combination.variant.name}, {combination.side}, {combination.driver}"


def _row(figures: Figures) -> str:
    combination, seen = figures.combination, figures.seen
    cells = [seen.requests, seen.foreign, seen.stale, seen.failed, figures.shared, figures.ended]
    told = [*map(str, cells), f"{figures.before} {figures.after}", f"{figures.on_slave:.0%}"]
    if figures.problem:
        told = ["-"] * len(told)
    return _line(combination.variant.name, f"{combination.side}, {combination.driver}", told)


def _line(server: str, side: str, figures: Sequence[str]) -> str:
    cells = [server.ljust(WIDTHS[0]), side.ljust(WIDTHS[1]), *(each.rjust(8) for each in figures)]
    return f"| {' | '.join(cells)} |"


def tell(text: str) -> None:
    """Print the progress."""
    print(text, file=sys.stderr, flush=True)


def _number_above_0(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/processes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--side", nargs="+", choices=SIDES, default=SIDES, help="the kind of application")
    parser.add_argument("--driver", nargs="+", choices=DRIVERS, default=DRIVERS, help="with which driver; both")
    parser.add_argument(
        "--requests",
        type=_number_above_0,
        default=2000,
        metavar="N",
        help="of each combination, after warming up (2000)",
    )
    parser.add_argument("--lag", type=_number_above_0, default=1, metavar="SECONDS", help="of the slave (1)")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when something was wrong")
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="where the servers log to; thrown away by default")
    parser.add_argument(
        "--venv",
        type=Path,
        default=default_folder(),
        metavar="FOLDER",
        help="with the servers; made if it is not there",
    )
    return parser.parse_args(argv)
