"""The application servers, and how each is started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from replswitch.testing.launch import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes.installed import Installed

FOLDER: Final = Path(__file__).resolve().parent
APPLICATION: Final = "processes.application"

PROCESSES: Final = 3
"""Workers of each server that has any."""

THREADS: Final = 4
"""Threads of each worker that has any."""

PATIENCE: Final = 60.0
"""Seconds in which a server must be up, and in which it must have ended."""


class StartError(Exception):
    """A server did not start."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A server with some options.

    Attributes:
        name: for the command line and the table.
        program: of the server, as the environment has it.
        options: beside those that all variants of the server have.
        forks: whether it imports the application first and forks then.
        greenlets: whether each request is a greenlet.
        processes: how many serve.
    """

    name: str
    program: str
    options: tuple[str, ...] = ()
    forks: bool = False
    greenlets: bool = False
    processes: int = PROCESSES

    def command(self, installed: Installed, port: int) -> list[str]:
        """Return the command that starts it."""
        address = f"127.0.0.1:{port}"
        if self.program == "gunicorn":
            common = ["--no-control-socket", f"--workers={PROCESSES}", f"--bind={address}", "--log-level=warning"]
            return [str(installed.program("gunicorn")), *common, *self.options, f"{APPLICATION}:application"]
        if self.program == "waitress":
            command = [str(installed.program("waitress-serve")), f"--threads={PROCESSES * THREADS}"]
            return [*command, f"--listen={address}", *self.options, f"{APPLICATION}:application"]
        common = ["--master", f"--processes={PROCESSES}", f"--threads={THREADS}", f"--http-socket={address}"]
        paths = [f"--virtualenv={installed.folder}", f"--pythonpath={FOLDER.parent}", f"--module={APPLICATION}"]
        quiet = ["--need-app", "--die-on-term", "--disable-logging", "--buffer-size=16384"]
        return [str(installed.program("uwsgi")), *common, *paths, *quiet, *self.options]


THREADED: Final = ("--worker-class=gthread", f"--threads={THREADS}")
GEVENT: Final = ("--worker-class=gevent",)
PATCHED_FIRST: Final = f"--config={FOLDER / 'gevent_first.py'}"

VARIANTS: Final = (
    Variant("gunicorn-sync", "gunicorn"),
    Variant("gunicorn-sync-preload", "gunicorn", ("--preload",), forks=True),
    Variant("gunicorn-gthread", "gunicorn", THREADED),
    Variant("gunicorn-gthread-preload", "gunicorn", (*THREADED, "--preload"), forks=True),
    Variant("gunicorn-gevent", "gunicorn", GEVENT, greenlets=True),
    Variant("gunicorn-gevent-preload", "gunicorn", (*GEVENT, "--preload", PATCHED_FIRST), forks=True, greenlets=True),
    Variant("uwsgi", "uwsgi", forks=True),  # a fork without Python's hooks
    Variant("uwsgi-osafterfork", "uwsgi", ("--py-call-osafterfork",), forks=True),
    Variant("uwsgi-lazy-apps", "uwsgi", ("--lazy-apps",)),
    Variant("waitress", "waitress", processes=1),
)
"""All of them, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves.

    Attributes:
        port: of 127.0.0.1.
        imported: the state at import: the ``process``, and its ``links``.
        process: the process that answered, and serves.
    """

    port: int
    imported: dict[str, Any]
    process: int


@contextmanager
def running(variant: Variant, installed: Installed, settings: dict[str, Any], log: IO[str]) -> Iterator[Running]:
    """Start a server with the application, and end it in the end.

    Args:
        variant: which.
        installed: where the servers are.
        settings: for the application.
        log: the output of the server.

    Raises:
        StartError: it was not up in time; the log says why.
    """
    port = free_port()
    told = {**settings, "greenlets": variant.greenlets, "path": [str(Path(each).resolve()) for each in sys.path]}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            variant.command(installed, port),
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(FOLDER.parent), "PROCESSES": json.dumps(told)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a group of its own, which can be ended as a whole
        )
        try:
            yield _when_up(process, port)
        finally:
            _end(process)


def _when_up(process: subprocess.Popen[bytes], port: int) -> Running:
    """Wait for the first response."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/up")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
            continue
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise StartError(f"/up has answered {answer.status}: {body[-500:]!r}")
        told = json.loads(body)
        return Running(port, told["imported"], told["process"])
    raise StartError("it has ended" if process.poll() is not None else f"it was not up in {PATIENCE:g} s")


def end_process(number: int | None) -> None:
    """Let one process of a server end, as servers do by themselves after some requests; another takes its place.

    Args:
        number: its id; None where no process has served.
    """
    if number is None:
        return
    until = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):  # it has ended
        os.kill(number, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(0.1)
            os.kill(number, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):  # the server if it still runs, and workers that outlive it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
