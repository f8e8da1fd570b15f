"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs pytest on a test module, with the plugin and no other, and returns what it printed."""

    def pytest_on(code: str, *arguments: str, **more: str) -> str:
        (tmp_path / "test_it.py").write_text(code)
        clean = {name: value for name, value in environment.items() if name != "CI"}
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "replswitch.testing.plugin", "-rA", "-Werror", *arguments],
            cwd=tmp_path,
            env=clean | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | more,
            capture_output=True,
            text=True,
            check=False,
        )
        return result.stdout + result.stderr

    return pytest_on


def test_the_pair_is_reset_before_each_test(run: Run) -> None:
    output = run("""
import pytest

@pytest.fixture(scope="session")
def ports(mariadb_pair_of_session):
    return [mariadb_pair_of_session.master["port"]]

def test_misuse(mariadb_pair, ports):
    mariadb_pair.lag = 60
    mariadb_pair.stop_slave()
    mariadb_pair.kill("master")

def test_next(mariadb_pair, sqlite_pair, ports):
    assert mariadb_pair.lag == 0
    mariadb_pair.connect("master").close()
    assert mariadb_pair.master["port"] == ports[0]
    sqlite_pair.kill("slave")

def test_each(replicated_pair):
    replicated_pair.connect("slave").close()
    replicated_pair.wait_caught_up()

def test_beyond_repair(mariadb_pair):
    with mariadb_pair.admin("slave") as admin, admin.cursor() as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute("RESET SLAVE ALL")

def test_new(mariadb_pair, ports):
    assert mariadb_pair.slave_names == ("slave",)
    mariadb_pair.wait_caught_up()
""")
    assert "7 passed" in output


def test_assert_reads_on_fails_if_its_block_reads_on_another_side(run: Run) -> None:
    output = run("""
import replswitch

def test_it(sqlite_pair, assert_reads_on):
    with replswitch.connect(sqlite_pair.master, sqlite_pair.slaves, driver="sqlite3") as db:
        with assert_reads_on("slave"), db.use_slave():
            db.cursor().execute("SELECT 1")
        with assert_reads_on("slave"):
            db.cursor().execute("SELECT 2")
""")
    assert "1 failed" in output
    assert "AssertionError: 1 read in the block did not run on a slave:" in output
    assert "SELECT 2" in output
    assert "test_it.py:9 in test_it" in output
    assert "reads.py" not in output.partition("short test summary")[0], "the traceback ends in replswitch"


NEEDS_SERVERS = """
from replswitch.testing import launch
launch.SBIN = ()

def test_mariadb(mariadb_pair):
    pass

def test_each(replicated_pair):
    pass
"""
NOWHERE = {"PATH": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}


def test_tests_without_a_server_are_skipped(run: Run) -> None:
    output = run(NEEDS_SERVERS, **NOWHERE)
    assert "1 passed, 3 skipped" in output
    assert "apt-get install mariadb-server-core mariadb-client-core" in output
    assert "make mysql" in output


def test_tests_without_a_server_fail_in_ci(run: Run) -> None:
    output = run(NEEDS_SERVERS, **NOWHERE, CI="true")
    assert "1 passed, 3 errors" in output
    assert "CI is set, so this must not be skipped" in output
    assert "apt-get install mariadb-server-core mariadb-client-core" in output
    assert "make mysql" in output
    assert "3 skipped" in run(NEEDS_SERVERS, **NOWHERE, CI="false")


def test_the_plugin_imports_no_driver_and_starts_no_server(run: Run) -> None:
    output = run("""
import sys

def test_nothing():
    assert "pymysql" not in sys.modules
    assert "sqlalchemy" not in sys.modules
""")
    assert "1 passed" in output
    assert "mariadb_pair_of_session" in run("", "--fixtures")


def test_the_example_of_the_documentation_passes(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    (example,) = [block for block in blocks if "def test_" in block]
    assert "3 passed" in run(example)


def test_r5_endpoints_that_a_test_has_learned_are_forgotten_before_the_next_test(run: Run) -> None:
    output = run("""
from replswitch.request.replay import Endpoints

endpoints = Endpoints()

def test_first():
    endpoints.learn("/", {"shop"})

def test_next():
    assert not endpoints.known
""")
    assert "2 passed" in output
