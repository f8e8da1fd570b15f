"""Starts `applications.command`: python benchmarks/applications."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # or this folder would be no package to import from
    sys.exit(import_module("applications.command").main())
