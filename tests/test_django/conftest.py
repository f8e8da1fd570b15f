"""The project on the pair of its driver, with the tables of its models in both databases.

Django is set up while the tests are collected, because modules that import models need it; the servers are filled in
when the first test asks for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from tests.test_django.project import dialect
from tests.test_django.project.served import PROJECT

from django_replswitch.servers import renew
from replswitch.state import push, stack

if TYPE_CHECKING:
    from tests.test_django.project.dialect import Pair

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in map(str, (ROOT / "src", ROOT / "integrations" / "django")) if path in sys.path]
"""The sources, where the tests import them; or else nothing, and other processes run on what is installed."""
SETTINGS = "tests.test_django.project.settings"

if not settings.configured:
    sys.path[:0] = [str(ROOT)]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", SETTINGS)
    django.setup()

RunPython = Callable[..., str]


@pytest.fixture(scope="session")
def django_pair_of_session(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The pair with the project's tables in ``shop`` (alias ``default``) and ``test_other`` (alias ``other``)."""
    pair: Any = request.getfixturevalue(f"{PROJECT.pair}_of_session")
    (slave,) = pair.slaves
    for database in settings.DATABASES.values():
        database["HOST"], database["PORT"] = pair.master["host"], pair.master["port"]
        database["USER"], database["PASSWORD"] = pair.master["user"], pair.master["password"]
        database["SLAVES"] = [{"HOST": slave["host"], "PORT": slave["port"]}]
    forget_connections()
    dialect.create_database(pair, "test_other")
    for alias in connections:
        call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
    forget_connections()
    pair.wait_caught_up()
    yield pair
    forget_connections()
    dialect.close_sessions()


@pytest.fixture
def django_pair(request: pytest.FixtureRequest, django_pair_of_session: Pair) -> Iterator[Pair]:
    """The pair with empty tables, caught up. Django's connections are new, and nothing is switched."""
    pair: Pair = request.getfixturevalue(PROJECT.pair)
    assert stack() is None
    forget_connections()
    dialect.end_links(pair)  # what tests of other folders keep in their pools: tests here count the connections
    dialect.empty_tables(pair)
    yield pair
    for alias in connections:
        connections[alias].state_change_disabled = False  # type: ignore[attr-defined]
    forget_connections()
    left = stack()
    if left is not None:
        push(None)  # type: ignore[arg-type]  # or every later test fails, too
    assert left is None, "the test left a state behind"


def forget_connections() -> None:
    """Close this thread's connections, and forget which slaves rest; the next use makes new ones."""
    renew()
    for connection in connections.all(initialized_only=True):
        connection.in_atomic_block = False  # a failed test may have left a transaction open
        connection.close()
        del connections[connection.alias]


@pytest.fixture
def run_python(django_pair: Pair) -> RunPython:
    """Run a script in a process of its own, on the same pair, and return what it prints.

    Its settings are the project's; ``databases=`` replaces DATABASES, ``PROJECT_DRIVER=`` the driver.
    """

    def run(script: str, *, databases: dict[str, Any] | None = None, **variables: str) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *SOURCES]),
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "PROJECT_DATABASES": json.dumps(databases or settings.DATABASES),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
