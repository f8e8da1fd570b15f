"""Virtual environments for the applications, and sdists with tests; made once, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from applications.interpreters import MissingError, interpreter

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The requirements of replswitch itself, which is imported from the checkout and not installed.
OURS: Final = ("itsdangerous>=2.2", "WebOb>=1.8.8")

#: The server of the applications.
SERVER: Final = ("waitress>=3",)

#: The file that says that an environment is complete.
READY: Final = "ready"


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of one application.

    Attributes:
        name: of the application.
        requirements: as pip takes them; those of replswitch are added.
        minor: the lowest minor version of Python 3 that it runs on.
    """

    name: str
    requirements: tuple[str, ...]
    minor: int = 11

    def python(self, cache: Path) -> Path:
        """Return the interpreter of the virtual environment, which is made if the cache has none.

        Raises:
            MissingError: there is no such Python, or pip could not install the requirements.
        """
        base = interpreter(self.minor)
        requirements = sorted({*self.requirements, *OURS, *SERVER})
        stamp = "\n".join([str(base), *requirements])
        folder = cache / f"{self.name}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
        python = folder / "bin" / "python"
        if not (folder / READY).exists():
            print(f"{self.name}: installing it into {folder}", file=sys.stderr, flush=True)
            subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
            _pip([str(python), "-m", "pip", "install", "--quiet", *requirements], self.name)
            (folder / READY).write_text(stamp)
        return python


def default_cache() -> Path:
    """Return the folder that keeps environments and sdists."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "replswitch" / "applications"


def sdist(name: str, version: str, cache: Path) -> Path:
    """Return the folder of an unpacked sdist, which is downloaded if the cache does not have it.

    Raises:
        MissingError: it cannot be downloaded.
    """
    folder = cache / f"{name}-{version}-sdist"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache) as temporary:
            options = ["--quiet", "--no-deps", f"--no-binary={name}", f"--dest={temporary}"]
            _pip([sys.executable, "-m", "pip", "download", *options, f"{name}=={version}"], name)
            (archive,) = Path(temporary).glob("*.tar.gz")
            (inside := Path(temporary, "unpacked")).mkdir()
            subprocess.run(["tar", "-xzf", str(archive), "-C", str(inside)], check=True)
            (unpacked,) = inside.iterdir()
            unpacked.rename(folder)
    return folder


def _pip(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        end = "\n".join(done.stderr.strip().splitlines()[-10:])
        raise MissingError(f"{name} cannot be installed:\n{end}")
