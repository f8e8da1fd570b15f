"""``"BACKEND": "django_replswitch.cache.DatabaseCache"`` always uses the master, and Django's own table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.django_suite import suite_source
from tests.test_django.project.served import NAMES, SERVED
from tests.test_django.requests import cache_contract, cache_visits

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Served

ON = ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient", "postgresql", "sqlite"]
MODULES = {"pymysql": "pymysql", "mysqlclient": "MySQLdb", "psycopg": "psycopg", "sqlite3": "sqlite3.dbapi2"}


def databases(served: Served) -> dict[str, Any]:
    """Return a setting DATABASES with a pair as the default."""
    servers = (served.pair.master, served.pair.slaves[0])
    master, slave = ({NAMES[key]: value for key, value in server.items()} for server in servers)
    engine = SERVED[served.driver].backend if served.driver in SERVED else served.driver
    return {"default": {"ENGINE": f"django_replswitch.backends.{engine}", **master, "SLAVES": [slave]}}


def run(served: Served, script: ModuleType, *arguments: str) -> str:
    """Run a script on a pair with a driver. Return its output."""
    done = subprocess.run(
        [sys.executable, str(script.__file__), *arguments],
        env={
            **os.environ,
            "PROJECT_DRIVER": served.driver if served.driver in SERVED else "mysqlclient",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DJANGO_SETTINGS_MODULE": "tests.test_django.project.settings",
            "PROJECT_DATABASES": json.dumps(databases(served)),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("served", ON, indirect=True)
@pytest.mark.parametrize("backend", ["django_replswitch.cache.DatabaseCache"])
def test_m1_a_get_that_uses_the_database_cache_stores_on_the_master_unrecorded(served: Served, backend: str) -> None:
    run(served, cache_visits, backend, "create")
    served.pair.wait_caught_up()
    served.pair.stop_slave()
    assert run(served, cache_visits, backend, "visit") == MODULES[served.driver]


@pytest.mark.timeout(300)  # it downloads Django's tests first
@pytest.mark.parametrize("served", ["mariadb-mysqlclient"], indirect=True)
def test_m1_djangos_own_tests_of_its_database_cache_pass(served: Served) -> None:
    try:
        folder = suite_source.tests_of_django(suite_source.default_cache())
    except suite_source.MissingError as error:
        pytest.skip(str(error))
    told = run(served, cache_contract, str(folder))
    count, outcome = told.splitlines()[-1].split(" ", 1)
    assert outcome == "run, 0 failed", told
    assert int(count) > 100
