"""The virtual environment with the application servers: made once, kept in the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = {
    "gunicorn": ("gunicorn[gevent]>=25.1",),  # --no-control-socket
    "uwsgi": ("uWSGI",),
    "waitress": ("waitress",),
}
"""What is installed for each server, by the name of its program. They are not in the extra ``bench``: uWSGI takes a
compiler and a minute, and gevent brings a greenlet of its own."""


def default_folder() -> Path:
    """Return where the environment is kept: for each version of Python one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "replswitch" / f"application-servers-{sys.implementation.cache_tag}"


class Installed:
    """The environment.

    Args:
        folder: of the environment; made when the first server is wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._problems: dict[str, str] = {}

    def program(self, name: str) -> Path:
        """Return the path of a program of the environment."""
        return self.folder / "bin" / name

    def problem(self, name: str) -> str:
        """Install a server, unless it is there; return why it cannot be, or nothing.

        Args:
            name: of the program; a key of `REQUIREMENTS`.
        """
        done = self.folder / f"{name}.installed"
        if name not in self._problems:
            self._problems[name] = "" if done.exists() else self._install(name)
            if not self._problems[name]:
                done.touch()
        return self._problems[name]

    def _install(self, name: str) -> str:
        wanted = REQUIREMENTS[name]
        print(f"installing {' '.join(wanted)} into {self.folder}", file=sys.stderr, flush=True)
        python = self.program("python")
        if not python.exists():
            problem = _run(sys.executable, "-m", "venv", str(self.folder))
            if problem:
                return problem
        return _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def _run(*command: str) -> str:
    """Run a command. Return the end of its output if it failed, else an empty string."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return "" if ended.returncode == 0 else f"{' '.join(command)} failed:\n{ended.stdout[-2000:]}"
