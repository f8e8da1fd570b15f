"""The same tests on PostgreSQL, with each of its drivers, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_django.project.served import SERVED

FOLDER = Path(__file__).parent
ALL = ["test_faults.py", "test_links.py", "test_slave_writes.py", "test_switching.py", "test_test_runs.py"]
ALL += ["test_transactions.py", "test_without_master.py", "test_writes.py", "on_postgresql.py"]


@pytest.mark.skipif("PROJECT_DRIVER" in os.environ, reason="this is that run")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", [driver for driver in SERVED if SERVED[driver].backend == "postgresql"])
def test_the_backend_tests_pass_on_postgresql(driver: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(FOLDER / name) for name in ALL)],
        env={**os.environ, "PROJECT_DRIVER": driver},
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
