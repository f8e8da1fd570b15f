"""`ReplicationTestMixin` and `production_routing`, on the pair and on SQLite in memory."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

from tests.test_django.backend import in_production_routing as cases
from tests.test_django.backend.asking import bodies
from tests.test_django.backend.test_test_runs import test_run  # noqa: F401 - a fixture
from tests.test_django.project.dialect import Pair

CASES = (cases.ShowsProduction, cases.IsAsItWas)


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    """Run the tests of a class as Python's runner does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_the_test_cases_for_production_routing_pass_and_commit_nothing(django_pair: Pair, db: Any) -> None:
    for case in CASES:
        result = run(case)
        assert not [*result.errors, *result.failures], "\n".join(text for _, text in result.errors + result.failures)
        assert result.testsRun > 1
    assert bodies(django_pair) == [], "something was committed"


def test_the_test_cases_for_production_routing_pass_on_sqlite_in_memory(test_run: Callable[..., None]) -> None:  # noqa: F811 - the fixture
    engine = "django_replswitch.backends.sqlite3"
    databases = {alias: {"ENGINE": engine, "NAME": f"{alias}.sqlite3"} for alias in ("default", "other")}
    names = [f"in_production_routing.{case.__name__}" for case in (*CASES, cases.ReallyReadsFromTheSlave)]
    test_run(*names, databases=databases)
