"""The test runner in Django's process: it records the outcome of each test during the run.

Text is not parsed: a test's docstring, its output and its subtests all change what a run prints.
"""

from __future__ import annotations

import json
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, connections
from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]  # the stubs lack it
from tests.django_suite.suite_outcomes import ERROR, EXPECTED, FAILED, PASSED, SKIPPED, UNEXPECTED, worse

if TYPE_CHECKING:
    from types import TracebackType

    Failure = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Record:
    """The file that the outcomes are written to, a JSON object in each line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, **entry: Any) -> None:
        """Add a line; it is in the file when this returns, whatever happens to the process."""
        self._file.write(json.dumps(entry) + "\n")


class RecordingResult(unittest.TextTestResult):
    """unittest's own result, which also records."""

    record: Record

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._running: unittest.TestCase | None = None
        self._began = 0.0
        self._kind = ""
        self._detail = ""

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name; so below
        super().startTest(test)
        self._running, self._began, self._kind, self._detail = test, time.perf_counter(), "", ""

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().stopTest(test)
        seconds = round(time.perf_counter() - self._began, 4)
        self.record.write(test=test.id(), kind=self._kind or ERROR, detail=self._detail, seconds=seconds)
        self._running = None

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().addSuccess(test)
        self._note(test, PASSED)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802 - unittest's name
        super().addSkip(test, reason)
        self._note(test, SKIPPED, reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Failure) -> None:  # noqa: N802 - unittest's name
        super().addExpectedFailure(test, err)
        self._note(test, EXPECTED)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().addUnexpectedSuccess(test)
        self._note(test, UNEXPECTED)

    def addFailure(self, test: unittest.TestCase, err: Failure) -> None:  # noqa: N802 - unittest's name
        super().addFailure(test, err)
        self._note(test, FAILED, self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: Failure) -> None:  # noqa: N802 - unittest's name
        super().addError(test, err)
        self._note(test, ERROR, self.errors[-1][1])

    def addSubTest(  # noqa: N802 - unittest's name
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: Failure | None
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None and err[0] is not None:
            kind, told = (FAILED, self.failures) if issubclass(err[0], test.failureException) else (ERROR, self.errors)
            self._note(test, kind, f"{subtest}\n{told[-1][1]}")

    def _note(self, test: unittest.TestCase, kind: str, detail: str = "") -> None:
        if self._running is None:  # a class or a module that could not be set up or torn down
            self.record.write(test=test.id(), kind=kind, detail=detail)
        elif not self._kind or worse(kind, self._kind):
            self._kind, self._detail = kind, detail


class RecordingRunner(DiscoverRunner):
    """Django's own runner, which also records."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        return RecordingResult

    def setup_databases(self, **options: Any) -> Any:
        """Make the test databases. On MySQL, the server copies a whole table to add a foreign key that it checks."""
        if connection.vendor != "mysql":
            return super().setup_databases(**options)
        with connection._nodb_cursor() as cursor:
            cursor.execute("SET GLOBAL foreign_key_checks = OFF")  # new sessions begin with it
        try:
            return super().setup_databases(**options)
        finally:
            connections.close_all()
            with connection._nodb_cursor() as cursor:
                cursor.execute("SET GLOBAL foreign_key_checks = ON")

    def build_suite(self, *args: Any, **options: Any) -> unittest.TestSuite:
        """Build the suite, and refuse one that lacks what was asked for: it would fail with both engines alike."""
        suite: unittest.TestSuite = super().build_suite(*args, **options)
        lost = [test for test in iter_test_cases(suite) if type(test).__name__ == "_FailedTest"]
        if lost:
            raise SystemExit(f"cannot be loaded: {', '.join(test.id() for test in lost)}")
        return suite

    def run_suite(self, suite: unittest.TestSuite, **options: Any) -> unittest.TextTestResult:
        record = RecordingResult.record = Record(Path(settings.SUITE_RECORD))
        wrapper: Any = connection
        record.write(total=suite.countTestCases(), driver=wrapper.Database.__name__)
        result: unittest.TextTestResult = super().run_suite(suite, **options)
        record.write(finished=True)
        return result
