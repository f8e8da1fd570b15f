"""The same tests without mysqlclient: PyMySQL replaces it, without code of the user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.test_django.again import outermost, run_again

AGAIN = {
    "test_faults.py": "",
    "test_links.py": "Opening or killed",
    "test_slave_writes.py": "runs_on_the_master or AfterARead or whole or session_raises or its_link_writable",
    "test_transactions.py": "",
    "test_writes.py": "",
}
"""The tests in which the driver matters, by file, as ``pytest -k`` takes them."""


@outermost
@pytest.mark.timeout(900)  # for a busy machine: each test in there has a limit of its own
def test_the_backend_tests_pass_with_pymysql() -> None:
    run_again(Path(__file__).parent, "pymysql", AGAIN)


def test_a_project_without_mysqlclient_runs_with_pymysql(run_python: Callable[..., str]) -> None:
    script = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from tests.test_django.project.models import Message

call_command("check", databases=["default"])
Message.objects.create(body="it's")
print(connection.Database.__name__, Message.objects.get().body)
"""
    assert run_python(script, PROJECT_DRIVER="pymysql").split("\n")[-2] == "pymysql it's"
    assert run_python(script.replace(".create", ".get_or_create")).split("\n")[-2] == "MySQLdb it's"
