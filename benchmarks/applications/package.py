"""Runs the tests of a Django package on the stock engine and on ours, and reports the differences."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from applications import process
from applications.application import OURS, STOCK, Plan, tell
from applications.environments import Environment, sdist
from replswitch.testing import MariaDBPair

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "django-simple-history"
VERSION: Final = "3.13.0"


@dataclass(slots=True)
class Tests:
    """The outcomes of the tests of one run.

    Attributes:
        tests: all that were run.
        bad: those that failed, with their tracebacks.
        skipped: those that were skipped.
    """

    tests: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def passed(self) -> set[str]:
        """Those that passed."""
        return set(self.tests) - self.bad.keys() - set(self.skipped)


def worse(stock: Tests, ours: Tests) -> dict[str, str]:
    """Return the tests that fail with ours and not with stock, or pass with stock alone; with their tracebacks."""
    found = {test: told for test, told in ours.bad.items() if test not in stock.bad}
    lost = stock.passed - ours.passed - found.keys()
    return found | dict.fromkeys(sorted(lost), "skipped, or not run")


def run(plan: Plan, driver: str) -> tuple[Tests, Tests]:
    """Run the tests with both engines. Return the outcomes with the stock engine and with ours.

    Raises:
        MissingError: the package is not available.
        ProcessError: a run did not come to its end.
    """
    python = Environment("package", (f"{NAME}=={VERSION}", driver)).python(plan.cache)
    source = sdist(NAME, VERSION, plan.cache)
    stock, ours = (_side(plan, python, source, side) for side in (STOCK, OURS))
    return stock, ours


def _side(plan: Plan, python: Path, source: Path, side: str) -> Tests:
    folder = plan.logs / f"package-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "record.json"
    with MariaDBPair() as pair:
        pair.lag = plan.lag
        wanted: dict[str, Any] = {
            "master": pair.master,
            "slaves": pair.slaves if side == OURS else [],
            "driver": plan.driver,
            "sdist": str(source),
            "record": str(record),
        }
        tell(f"package-{side}: running the tests of {NAME} {VERSION}")
        process.do(python, "applications.package_run", wanted, folder / "tests.log")
    if not record.exists():
        raise process.ProcessError(f"the tests did not come to their end; see {folder / 'tests.log'}")
    return Tests(**json.loads(record.read_text()))
