"""Runs the shop: ``python examples/shop_fastapi``. ``--help`` lists the options."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder on its path; the packages are in the one above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(importlib.import_module("shop_fastapi.command").main())
