"""tools/in-memory, which puts the temporary files of a command in memory."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "in-memory"
SHOW = ["sh", "-c", 'echo "${TMPDIR-}"; test -z "${TMPDIR-}" || ls -ld "$TMPDIR"']

HAS_MEMORY = os.access("/dev/shm", os.W_OK) and not os.statvfs("/dev/shm").f_flag & os.ST_NOEXEC
pytestmark = pytest.mark.skipif(not HAS_MEMORY, reason="this system has no /dev/shm where programs can run")


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    return subprocess.run(
        [str(TOOL), *command], env={**environment, **variables}, capture_output=True, text=True, check=False
    )


def test_temporary_files_are_in_memory_and_are_removed_at_the_end() -> None:
    folder, listed = run(*SHOW, IN_MEMORY_NEEDED="1").stdout.splitlines()
    assert folder.startswith("/dev/shm/replswitch-")
    assert listed.startswith("drwx--x--x"), "another account must be able to enter it"
    assert not Path(folder).exists()


def test_a_killed_test_command_leaves_no_temporary_files() -> None:
    with subprocess.Popen(
        [str(TOOL), "sh", "-c", 'echo "$TMPDIR"; exec sleep 60'],
        env={**{name: value for name, value in os.environ.items() if name != "TMPDIR"}, "IN_MEMORY_NEEDED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().strip()
        assert Path(folder).is_dir()
        os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 143
    assert not Path(folder).exists()


def test_the_exit_code_of_in_memory_is_that_of_the_test_command() -> None:
    assert run("sh", "-c", "exit 7", IN_MEMORY_NEEDED="1").returncode == 7


def test_a_tmpdir_that_the_user_has_set_is_used() -> None:
    assert run(*SHOW, TMPDIR="/", IN_MEMORY_NEEDED="1").stdout.startswith("/\n")


def test_without_enough_memory_temporary_files_stay_on_the_disk() -> None:
    assert run(*SHOW, IN_MEMORY_NEEDED=str(2**50)).stdout == "\n"
