"""A machine that has only what a test puts there, to run the project's commands on."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that replaces the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "env", "grep", "mktemp", "rm", "sh", "true"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


@pytest.fixture
def run(machine: Path, tmp_path: Path) -> Run:
    """Run a script from tools/ on that machine."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(machine), "SBIN": "", "TMPDIR": str(tmp_path), **environment}
        return subprocess.run(
            [TOOLS / name, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run
