"""Starts the processes of the applications, each with the interpreter of its environment."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import django_replswitch
import flask_replswitch
import replswitch

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The import path of the processes: that of this script, and this folder.
ROOTS: Final = [
    *(
        Path(package.__file__ or "").resolve().parents[1]
        for package in (replswitch, django_replswitch, flask_replswitch)
    ),
    Path(__file__).resolve().parents[1],
]

#: Lines of a log that are shown when a process has failed.
SHOWN: Final = 30


class ProcessError(Exception):
    """A process has ended before its time."""


def environment() -> dict[str, str]:
    """Return the environment of a process."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, ROOTS))}


def do(python: Path, module: str, wanted: dict[str, Any], log: Path) -> None:
    """Let a process do something, and wait for it.

    Raises:
        ProcessError: it failed.
    """
    with log.open("wb") as output:
        done = subprocess.run(
            [python, "-m", module],
            input=json.dumps(wanted).encode() + b"\n",
            stdout=output,
            stderr=output,
            env=environment(),
            cwd=log.parent,
            check=False,
        )
    if done.returncode:
        raise ProcessError(f"{module} failed:\n{_end(log)}")


@contextmanager
def serving(python: Path, module: str, wanted: dict[str, Any], log: Path) -> Iterator[str]:
    """Serve an application while a block runs; yield its address.

    Raises:
        ProcessError: it has not started.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment(),
            cwd=log.parent,
        ) as process,  # it ends with its stdin
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(wanted).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise ProcessError(f"{module} has not started:\n{_end(log)}")
        yield f"http://127.0.0.1:{json.loads(line)['port']}"


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN:])
