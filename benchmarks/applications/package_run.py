"""A process that runs the tests of django-simple-history, in the folder of its sdist, on one engine.

After all tests it writes the outcome of each one to a file.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import django
from django.conf import settings
from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]  # the stubs lack it

from applications.django_settings import database, documented, stand_in
from applications.serving import given

if TYPE_CHECKING:
    import unittest

#: The tests that the package's own script runs.
LABELS: Final = ["simple_history.tests", "simple_history.registry_tests"]


class Recording(DiscoverRunner):
    """Django's own runner, which also records.

    Attributes:
        record: where to.
    """

    record: Path

    def run_suite(self, suite: unittest.TestSuite, **options: Any) -> unittest.TextTestResult:
        """Run them, and write down how they ended."""
        tests = [test.id() for test in iter_test_cases(suite)]
        result: unittest.TextTestResult = super().run_suite(suite, **options)
        bad = {test.id(): told for test, told in [*result.failures, *result.errors]}
        bad |= {test.id(): "unexpected success" for test in result.unexpectedSuccesses}
        skipped = [test.id() for test, _ in result.skipped]
        self.record.write_text(json.dumps({"tests": tests, "bad": bad, "skipped": skipped}))
        return result


def main(wanted: dict[str, Any]) -> None:
    """Run the tests."""
    stand_in(wanted["driver"])
    sys.path.insert(0, wanted["sdist"])
    defaults: dict[str, Any] = import_module("runtests").get_default_settings(database_name="mariadb")
    databases = {alias: database(wanted, name) for alias, name in (("default", "package"), ("other", "package_other"))}
    settings.configure(**documented(wanted, defaults) | {"DATABASES": databases, "ALLOWED_HOSTS": ["*"]})
    django.setup()
    Recording.record = Path(wanted["record"])
    Recording(interactive=False, verbosity=2).run_tests(LABELS)


if __name__ == "__main__":
    main(given())
