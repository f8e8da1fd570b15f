"""Fixtures for the throw-away pairs: scripts in a process of their own, and a search for leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import replswitch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Script = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment for a Python of its own which is to import the replswitch that is tested here."""
    source = str(Path(replswitch.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def script(environment: dict[str, str]) -> Iterator[Script]:
    """Runs Python code in a process and a session of its own; its output can be read line by line."""
    running = []

    def run(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.fixture
def gone() -> Callable[[Path], bool]:
    """Return whether a folder and the processes that use it are gone; wait a while for it."""

    def wait(folder: Path) -> bool:
        deadline = time.monotonic() + 60
        while folder.exists() or processes_of(folder):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return wait


@pytest.fixture
def left() -> Callable[[Path], list[str]]:
    """The command lines of all processes that name a folder."""
    return processes_of
