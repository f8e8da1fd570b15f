"""Servers die under an application with 8 clients, a short while; `benchmarks/chaos` is the long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("side", "part"), [("connect", "1/3"), ("django", "2/3"), ("flask", "3/3")], ids=["connect", "django", "flask"]
)
def test_visitors_see_no_error_and_no_stale_page_while_servers_fail(side: str, part: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, str(ROOT / "benchmarks" / "chaos"), "--short", "--check"]
    command += ["--side", side, "--part", part, "--seed", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, "--log", str(log)], env=environment, capture_output=True, text=True, check=False)
    report = f"{done.stdout}\n{done.stderr}\nThe end of the application's log:\n{log.read_text()[-5000:]}"
    assert done.returncode == 0, report
    assert "0 wrong" in done.stdout
