"""Tests of this folder run again on PostgreSQL, with each of its drivers, in processes of their own.

With other words: ``PROJECT_DRIVER=psycopg pytest tests/test_django/backend`` runs all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replswitch import ConfigurationError
from replswitch.drivers import load_driver

FOLDER = Path(__file__).parent

AGAIN = {
    "psycopg": {
        "on_postgresql.py": "",
        "test_writes.py": "",
        "test_transactions.py": "Atomic or Savepoints or LostLinks or ByHand or ForUpdate",
        "test_faults.py": "savepoint or BegunByAStatement or AtFault or NotReplicated or closed_cursor",
        "test_without_master.py": "read_only or cannot_begin or lost_master",
        "test_slave_writes.py": "runs_on_the_master or AfterARead or whole or session_raises or lets_its_link",
        "test_links.py": "Opening or killed",
    },
    "psycopg2": {
        "on_postgresql.py": "",
        "test_writes.py": "recorded",
        "test_transactions.py": "Savepoints or ByHand",
        "test_slave_writes.py": "AfterARead or whole or session_raises or lets_its_link",
    },
}
"""The tests by driver and file, as ``pytest -k`` takes them."""


@pytest.mark.skipif("PROJECT_DRIVER" in os.environ, reason="this is that run")
@pytest.mark.timeout(900)  # for a busy machine: each test in there has a limit of its own
@pytest.mark.parametrize("driver", AGAIN)
def test_the_backend_tests_pass_on_postgresql(driver: str) -> None:
    try:
        load_driver(driver, binding=True)
    except ConfigurationError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))
    names = {file.removesuffix(".py"): chosen for file, chosen in AGAIN[driver].items()}
    chosen = " or ".join(f"({file} and ({some}))" if some else file for file, some in names.items())
    files = [str(FOLDER / file) for file in AGAIN[driver]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen],
        env={**os.environ, "PROJECT_DRIVER": driver},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
