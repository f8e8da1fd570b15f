"""Runs tests of a folder again with another driver, in a process of their own.

The drivers are those of `project.served`: ``PROJECT_DRIVER=psycopg pytest tests/test_django/backend`` runs them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replswitch import ConfigurationError
from replswitch.drivers import load_driver

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]

outermost = pytest.mark.skipif("PROJECT_DRIVER" in os.environ, reason="this is that run")
"""Marks a test that calls `run_again`."""


def run_again(folder: Path, driver: str, files: Mapping[str, str]) -> None:
    """Run tests again. They must pass.

    Args:
        folder: the folder of the files.
        driver: the driver. If it is not installed, the test is skipped.
        files: the paths of the files in the folder, each with its tests, as ``pytest -k`` takes them; empty for all.
    """
    try:
        load_driver(driver, binding=True)
    except ConfigurationError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))
    names = {Path(file).stem: chosen for file, chosen in files.items()}
    chosen = " or ".join(f"({file} and ({some}))" if some else file for file, some in names.items())
    paths = [str(folder / file) for file in files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *paths, "-k", chosen],
        env={**os.environ, "PROJECT_DRIVER": driver},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
