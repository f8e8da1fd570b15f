"""A folder and processes that are removed together with the process that asked for them.

:class:`Kept` is the client of :mod:`replswitch.testing.keeper`, a separate process that owns the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

from replswitch.testing import keeper
from replswitch.testing.errors import PairError

LONGEST_BASE = 50
"""The greatest length, in characters, of a temporary directory's path. A socket's path below it then fits into the
limit: 107 on Linux (unix(7)), 103 on macOS."""

_all_kept: weakref.WeakSet[Kept] = weakref.WeakSet()


class Kept:
    """A temporary folder, and processes that are started and killed by name.

    Both are removed by :meth:`close`, and also when this process ends, even if it is killed. The processes do not
    receive the signals of this process's terminal (Ctrl-C). In a process that is forked from this one,
    :meth:`close` does nothing.

    Args:
        account: the user id and the group id under which the processes run, and which own the folder; None for those
            of this process. Only root can choose others.

    Attributes:
        folder: the folder.
    """

    def __init__(self, account: tuple[int, int] | None = None) -> None:
        base = tempfile.gettempdir()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._running: dict[str, _Watch] = {}
        # Start it by its path and with -I -S, so that neither the user's site packages nor replswitch are imported.
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [
                sys.executable,
                "-I",
                "-S",
                keeper.__file__,
                base if len(base) <= LONGEST_BASE else "/tmp",  # noqa: S108 - mkdtemp below it
                *map(str, account or ()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        _all_kept.add(self)
        self.folder = Path(self._read()["folder"])

    def start(self, name: str, argv: list[str], log: Path) -> int:
        """Start a process.

        Args:
            name: the name of the process for later calls. It can be used again when the process has ended.
            argv: the command and its arguments.
            log: the file to which its standard output and error are appended.

        Returns:
            Its process id.

        Raises:
            PairError: the command could not be executed.
        """
        pid = int(self._ask(do="start", name=name, argv=argv, log=str(log))["pid"])
        self._running.pop(name, None)
        with contextlib.suppress(OSError, AttributeError):  # not on Linux, or it has ended already
            self._running[name] = _Watch(pid)
        return pid

    def kill(self, name: str) -> None:
        """Kill the process (SIGKILL) and wait until it is gone."""
        self._ask(do="kill", name=name)

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of the process, or None while it runs."""
        watch = self._running.get(name)
        is_ours = os.getpid() == self._owner and self._process.poll() is None
        if is_ours and watch is not None and watch.is_running():
            return None
        code: int | None = self._ask(do="poll", name=name)["code"]
        return code

    def close(self) -> None:
        """Kill all processes, remove the folder, and wait until that is done."""
        with self._lock:
            self._running.clear()
            self._hang_up()
            self._process.wait()
        if os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)  # still there if the keeper itself was killed

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer."""
        with self._lock:
            if self._process.stdin is None or self._process.stdin.closed:
                raise PairError("the servers of this pair belong to another process, or the pair is closed")
            with contextlib.suppress(BrokenPipeError):  # `_read` reports that the keeper is gone
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
            return self._read()

    def _read(self) -> dict[str, Any]:
        """Read one answer."""
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise PairError(
                "the process that keeps the servers is gone, and the servers with it."
                f" Its exit code is {self._process.wait()}. Was it killed? Close the pair and start it again."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PairError(f"the process that keeps the servers reports: {answer['error']}")
        return answer

    def _hang_up(self) -> None:
        """Close the pipes. The keeper then cleans up and ends."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _forget(self) -> None:
        """Close the parent's pipe in a forked child, so that the pipe closes when the parent ends."""
        self._hang_up()
        self._lock = threading.Lock()  # another thread may have held it when the process was forked
        self._process.returncode = 0  # it is no child of this process, so nothing waits for it or warns


class _Watch:
    """Shows whether a process still runs. To ask `replswitch.testing.keeper` would take much longer.

    Args:
        pid: the id of the process.

    Raises:
        OSError: there is no such process.
        AttributeError: the system has no pidfd_open(2).
    """

    def __init__(self, pid: int) -> None:
        self._file = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return not self._poll.poll(0)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            os.close(self._file)


def _forget_all() -> None:
    for kept in list(_all_kept):
        kept._forget()


os.register_at_fork(after_in_child=_forget_all)
