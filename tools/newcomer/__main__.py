"""Runs ``tools/try-in-container``, on a plain Python without packages."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder on its path; the modules are named from the folder of the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.dont_write_bytecode = True
    sys.exit(importlib.import_module("tools.newcomer.command").main())
