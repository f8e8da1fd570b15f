"""Runs the message board: ``python examples/board``. ``--help`` lists the options."""

import contextlib
import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder on its path; the package is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(importlib.import_module("board.command").main())
