"""The outcome of each test of a run, and the differences of two runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PASSED: Final = "passed"
SKIPPED: Final = "skipped"
EXPECTED: Final = "expected failure"
UNEXPECTED: Final = "unexpected success"
FAILED: Final = "failed"
ERROR: Final = "error"

#: From best to worst: a test whose subtests end differently has the worst of their outcomes.
OUTCOMES: Final = (PASSED, EXPECTED, SKIPPED, UNEXPECTED, FAILED, ERROR)
BAD: Final = (UNEXPECTED, FAILED, ERROR)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one test.

    Attributes:
        kind: one of `OUTCOMES`.
        detail: a traceback, or the reason for which it was skipped.
        seconds: how long it took.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Outcomes:
    """A run, as far as its record goes.

    Attributes:
        tests: the outcomes by the tests' ids.
        total: how many tests the run was going to do; 0 before it knew.
        driver: the name of the module that the engine calls its driver.
        finished: the run came to its end, and was not cut off.
    """

    tests: dict[str, Outcome] = field(default_factory=dict)
    total: int = 0
    driver: str = ""
    finished: bool = False

    def read(self, lines: Iterable[str]) -> None:
        """Add what `suite_runner` wrote, a JSON object in each line."""
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            if "test" in told:
                test, outcome = told.pop("test"), Outcome(**told)
                before = self.tests.get(test)
                # Whatever ran twice under one id passed only if it passed twice.
                if before is None or worse(outcome.kind, before.kind):
                    self.tests[test] = outcome
            elif "total" in told:
                self.total, self.driver = told["total"], told["driver"]
            else:
                self.finished = told["finished"]

    def counts(self) -> Counter[str]:
        """Return how many tests ended in each way."""
        return Counter(outcome.kind for outcome in self.tests.values())

    def not_passed(self) -> list[str]:
        """Return the labels of what did not pass: a test, or a class or a module that could not be set up."""
        return sorted({test.rpartition("(")[2].rstrip(")") for test, one in self.tests.items() if one.kind != PASSED})

    def bad(self) -> int:
        """Return how many tests failed."""
        counts = self.counts()
        return sum(counts[kind] for kind in BAD)


def worse(one: str, other: str) -> bool:
    """Return whether one outcome is worse than another."""
    return OUTCOMES.index(one) > OUTCOMES.index(other)


def only_in(one: Mapping[str, Outcome], other: Mapping[str, Outcome]) -> list[str]:
    """Return the tests that fail in one run and not in the other, and those that pass only in the other.

    So a test that is skipped, or that does not run at all because its class could not be set up, is in the list
    when it passes in the other run.
    """
    found = []
    for test in sorted(one.keys() | other.keys()):
        here, there = (run[test].kind if test in run else "" for run in (one, other))
        if (here in BAD and there not in BAD) or (there == PASSED and here != PASSED):
            found.append(test)
    return found
