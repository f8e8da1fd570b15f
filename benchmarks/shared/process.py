"""Start a module of the benchmarks as a process of its own."""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module."""
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the environment: the process can import what this one can, and nothing else."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), **more}
