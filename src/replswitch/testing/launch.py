"""Find a server program and a free port, start the program, and wait until it is ready."""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from typing import TYPE_CHECKING

from replswitch.testing.errors import ServerNotFoundError, ServerStartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from replswitch.testing.kept import Kept

WITHIN = 60.0
"""Seconds that a program may take to be ready. There are many, because the machine may be busy."""

PORTS = range(20000, 30000)
"""Ports below the range from which Linux, macOS and Windows take the ports of outgoing connections. So no outgoing
connection occupies the port of a server that is down."""

SBIN = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/libexec", "/usr/local/mysql/bin")
"""Folders in which servers are often installed, and which are not in the PATH of every user."""

LOG_LINES = 20
"""How many lines of a log an error contains."""


def find_program(name: str, package: str) -> str:
    """Return the path of a program.

    Args:
        name: the file name of the program.
        package: the Debian package that contains the program, for the error.

    Raises:
        ServerNotFoundError: the program is not on this machine.
    """
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN]))
    if path is None:
        raise ServerNotFoundError(
            f"{name} is not on this machine (looked in PATH and {', '.join(SBIN)})."
            f" On Debian and Ubuntu: apt-get install {package}"
        )
    return path


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now. Another process may still take it first."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - nothing secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run(kept: Kept, name: str, argv: list[str], log: Path, *, ready: Callable[[], bool] | None = None) -> None:
    """Start a program and wait until it is ready.

    Args:
        kept: the keeper that starts the program.
        name: the name of the program in the keeper.
        argv: the command.
        log: the file for the program's output; the file is emptied first.
        ready: returns whether the program is ready; None for a program that is ready when it has ended without an
            error.

    Raises:
        ServerStartError: the program failed, or was not ready in time. It is not running any more.
    """
    log.unlink(missing_ok=True)
    kept.start(name, argv, log)
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        code = kept.exit_code(name)
        if code == 0 and ready is None:
            return
        if code is not None:
            raise ServerStartError(f"{name}: {argv[0]} ended with exit code {code}.", server=name, log=_tail(log))
        if ready is not None and ready():
            return
        time.sleep(0.01)
    kept.kill(name)
    raise ServerStartError(f"{name}: {argv[0]} was not ready within {WITHIN:.0f} s.", server=name, log=_tail(log))


def _tail(log: Path) -> str:
    """Return the last lines of a log."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
