"""Finds a Python for applications that do not run on the one that runs this script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The minor versions to look for. The lowest that an application accepts comes first, as it works most likely.
MINORS: Final = range(11, 15)


class MissingError(Exception):
    """Something is not available on this machine. The message names it."""


class InterpreterError(MissingError):
    """There is no Python that is new enough."""


def interpreter(minor: int) -> Path:
    """Return a Python 3 that is new enough: the one that runs this script, or another one of this machine.

    Args:
        minor: the lowest minor version.

    Raises:
        InterpreterError: there is none.
    """
    if sys.version_info >= (3, minor):
        return Path(sys.executable)
    for command in _candidates(minor):
        # A command in the PATH may be pyenv's, which fails where that version is not activated. So it is tried.
        tried = subprocess.run([command, "-c", "import venv"], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    raise InterpreterError(f"no Python 3.{minor} or newer was found")


def _candidates(minor: int) -> Iterator[Path]:
    names = [f"3.{number}" for number in MINORS if number >= minor]
    for name in names:
        if found := shutil.which(f"python{name}"):
            yield Path(found)
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        for name in names:
            yield from sorted(Path(root, "versions").glob(f"{name}.*/bin/python"))
