"""Runs `python -m tests.django_suite` in a process of its own, for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.django_suite.suite_source import MISSING

import django_replswitch
import replswitch

ROOT = Path(__file__).parents[2]


def packages() -> str:
    """Return a PYTHONPATH with the packages that this test imports: the checkout's or the installed wheel's."""
    return os.pathsep.join(str(Path(package.__file__ or "").parents[1]) for package in (replswitch, django_replswitch))


def compare(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    environment = {**os.environ, "PYTHONPATH": packages(), **environment}
    command = [sys.executable, "-m", "tests.django_suite", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def unless_missing(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Skip where this machine lacks what the script needs, and fail there when CI is set."""
    if done.returncode == MISSING:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {done.stderr}")
        pytest.skip(done.stderr.strip())
    return done


def passes_as_with_djangos_engine(driver: str, *labels: str) -> None:
    """Fail if one of Django's own tests fails with our engine only.

    Args:
        driver: the driver of both engines.
        labels: which tests run (by default those of `python -m tests.django_suite`).
    """
    done = unless_missing(compare("--driver", driver, "--brief", *labels))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
