"""Django's test runner and its TestCase with a switching connection, in processes of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair

RunPython = Callable[..., str]

SCRIPT = """
import sys, unittest
import django
django.setup()
from django.test.runner import DiscoverRunner

runner = DiscoverRunner(verbosity=0, interactive=False, keepdb=False)
labels = ["tests.test_django.backend." + (name if "." in name else "in_test_run." + name) for name in NAMES]
sys.exit(runner.run_tests(labels))
"""


@pytest.fixture
def test_run(run_python: RunPython) -> Callable[..., None]:
    """Have Django run some of the classes in in_test_run.py."""

    def run(*names: str, **options: Any) -> None:
        run_python(SCRIPT.replace("NAMES", repr(list(names))), **options)

    return run


def test_a_django_test_case_sees_its_own_data(test_run: Callable[..., None]) -> None:
    test_run("SeesItsOwnData")


def test_a_django_test_leaves_no_rows_for_the_next_test(test_run: Callable[..., None]) -> None:
    test_run("HasNoDataOfItsOwn")


def test_in_a_test_run_every_link_uses_the_test_database(django_pair: Pair, test_run: Callable[..., None]) -> None:
    databases = copy.deepcopy(settings.DATABASES)
    databases["default"]["SLAVES"][0]["NAME"] = "shop_on_the_slave"
    test_run("UsesTheTestDatabase", databases=databases)
    assert dialect.databases_like(django_pair, "master", "^test_.*shop") == []  # it is gone after the run
    assert dialect.databases_like(django_pair, "slave", "^shop_on_the_slave$") == []


def test_in_a_test_run_both_states_share_one_link_to_sqlite_in_memory(
    tmp_path: Path, test_run: Callable[..., None]
) -> None:
    """If NAME is a file, Django runs the tests in memory, and the NAME of the slave is also theirs."""
    file, other = (str(tmp_path / name) for name in ("file", "other file"))
    databases = {
        "default": {"ENGINE": "django_replswitch.backends.sqlite3", "NAME": file, "SLAVES": [{"NAME": other}]},
        "other": {"ENGINE": "django_replswitch.backends.sqlite3", "NAME": ":memory:"},
    }
    test_run("SharesAMemory", "SharesAMemoryInABlock", "ServesAMemory", databases=databases)
    assert list(tmp_path.iterdir()) == []
