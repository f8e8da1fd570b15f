"""Print what replswitch costs, with the limit of the project beside each figure.

Most figures are ratios. The README of the benchmarks says how they are measured.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cost import (
    asgi,
    async_sessions,
    calls,
    choosing,
    connection,
    django_queries,
    django_requests,
    django_statements,
    flask_requests,
    postgresql,
    scaling,
    sessions,
    state,
    statements,
    telemetry,
    wsgi,
)
from cost.ratio import report

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT: tuple[Any, ...] = (
    state, wsgi, asgi, connection, postgresql, choosing, calls, statements, sessions, async_sessions, flask_requests,
    scaling, telemetry,
)  # fmt: skip
"""What runs if nothing is named. The others compare whole Django projects, and take longer."""

BENCHMARKS: dict[str, Any] = {
    module.__name__.rpartition(".")[2]: module
    for module in (*DEFAULT, django_queries, django_requests, django_statements)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line names. Return the exit code."""
    listed = "\n".join(f"  {name:<20}{module.__doc__.splitlines()[0]}" for name, module in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python benchmarks/cost",
        description=f"{__doc__}\nThe benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; default: all but django_*")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a figure misses its limit")
    parser.add_argument("--verbose", action="store_true", help="print the parts of a figure, if they are known")
    given = parser.parse_args(argv)
    if unknown := sorted(set(given.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; they are: {', '.join(BENCHMARKS)}")
    modules = [BENCHMARKS[name] for name in given.names] or DEFAULT
    missed = report(*(module.rows for module in modules), verbose=given.verbose)
    return 1 if given.check and missed else 0
