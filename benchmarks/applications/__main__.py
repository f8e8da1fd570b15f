"""Runs `applications.command`: ``python benchmarks/applications``. ``--help`` lists the options."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder of the packages
    sys.exit(import_module("applications.command").main())
