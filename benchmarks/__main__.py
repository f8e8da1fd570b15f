"""The benchmarks: ``python benchmarks FOLDER`` runs those of a folder, ``python benchmarks`` those of cost."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

FOLDERS = ("cost", "consistency", "chaos", "processes", "applications")


def main(name: str = FOLDERS[0], *arguments: str) -> int:
    """Run the benchmarks of a folder. Return the exit code."""
    if name in {"-h", "--help"}:
        print("usage: python benchmarks [FOLDER] [OPTIONS]\n\nThe folders:")
        for folder in FOLDERS:
            print(f"  {folder:<14}{import_module(folder).__doc__}")
        print("\npython benchmarks FOLDER --help lists the options of one. Without a folder, it is cost.")
        return 0
    folder = FOLDERS[0]
    if name in FOLDERS:
        folder = name
    else:
        arguments = (name, *arguments)
    sys.argv = [f"python benchmarks/{folder}", *arguments]
    command: Any = import_module(f"{folder}.command")
    return int(command.main())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
