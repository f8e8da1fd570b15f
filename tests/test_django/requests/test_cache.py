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
    from collections.abc import Callable
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


def run(served: Served, script: ModuleType, argument: str, meanwhile: Callable[[], None] | None = None) -> str:
    """Run a script on a pair with a driver.

    Args:
        served: the pair and the driver.
        script: the module.
        argument: its argument.
        meanwhile: called when the script has printed a line. Then the script reads a line, and goes on.

    Returns:
        What the script prints, without that line.
    """
    with subprocess.Popen(
        [sys.executable, str(script.__file__), argument],
        env={
            **os.environ,
            "PROJECT_DRIVER": served.driver if served.driver in SERVED else "mysqlclient",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DJANGO_SETTINGS_MODULE": "tests.test_django.project.settings",
            "PROJECT_DATABASES": json.dumps(databases(served)),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            if meanwhile and process.stdout.readline():  # nothing if the script has failed
                meanwhile()
            told, errors = process.communicate("go on\n", timeout=200)
        finally:
            process.kill()
    assert process.returncode == 0, told + errors
    return told.strip()


@pytest.mark.parametrize("served", ON, indirect=True)
@pytest.mark.parametrize("backend", ["django_replswitch.cache.DatabaseCache"])
def test_m1_a_get_that_uses_the_database_cache_stores_on_the_master_unrecorded(served: Served, backend: str) -> None:
    def stop_replication() -> None:
        served.pair.wait_caught_up()
        served.pair.stop_slave()

    assert run(served, cache_visits, backend, stop_replication) == MODULES[served.driver]


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
