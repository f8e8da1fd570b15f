"""Data folders of new, empty servers. Making one takes seconds, so each is made once and kept in the user's cache.

The cache is the folder ``replswitch/data`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. It can be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def cache_folder() -> Path:
    """Return the folder of this user that contains what replswitch can make or download again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replswitch"


class CachedData:
    """A data folder in the cache, which a command has made.

    Args:
        command: the command, without the options that name the pair's own folders.
        programs: the programs that make and use the folder. When one of them changes, the folder is made again.
    """

    def __init__(self, command: Sequence[str], programs: Sequence[str]) -> None:
        stats = [(program, Path(program).stat()) for program in programs]
        versions = [(program, stat.st_size, stat.st_mtime_ns) for program, stat in stats]
        digest = hashlib.sha256(repr((command, versions)).encode()).hexdigest()[:16]
        self._kind = f"{Path(programs[0]).name}-"
        self._folder = cache_folder() / "data" / f"{self._kind}{digest}"

    def copy_to(self, target: Path) -> bool:
        """Copy the folder from the cache to ``target``. Return False if the cache does not contain the folder."""
        try:
            shutil.copytree(self._folder, target)
        except OSError:  # it is not there, or another process is removing it
            shutil.rmtree(target, ignore_errors=True)
            return False
        return True

    def keep(self, source: Path) -> None:
        """Keep a copy of a folder that was just made. Remove the folders that other versions of the program have made.

        What a killed process has left is removed an hour later. If the cache cannot be written, the next pair makes its
        folder again.
        """
        parent = self._folder.parent
        with suppress(OSError):
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=parent, ignore_cleanup_errors=True) as new:
                copy = shutil.copytree(source, Path(new) / "data")
                # Each folder is renamed in one step, so that no other process sees a part of it.
                copy.rename(self._folder)
                for number, other in enumerate([*parent.glob(f"{self._kind}*"), *parent.glob(".new-*")]):
                    is_new = other.name.startswith(".new-") and other.stat().st_mtime > time.time() - 3600
                    if other != self._folder and not is_new:
                        other.rename(Path(new) / f"old{number}")
