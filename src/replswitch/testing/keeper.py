"""The keeper, a small process that owns a folder and the servers in it, and outlives the test run.

A test run can end in ways in which none of its own clean-up code runs (``kill -9``, a crash, a CI job that is
cancelled). So the servers are not children of the test run but of this process, which
:class:`replswitch.testing.kept.Kept` starts as a script. The keeper and the test run share a pipe. When the pipe
closes, or the process that started the keeper is gone, the keeper kills its servers, removes its folder and ends.

The keeper is the parent of the servers. The id of a process stays in use until its parent has read the exit
code, so the keeper never kills another process that has got the same id. The keeper uses the standard library
only and imports nothing of replswitch, so it starts quickly.

One request is one line of JSON on standard input, its answer one line on standard output::

    {"do": "start", "name": "master", "argv": ["mariadbd", …], "log": "/…/master.log"}   -> {"pid": 4711}
    {"do": "kill", "name": "master"}                                                     -> {"code": -9}
    {"do": "poll", "name": "master"}                                                     -> {"code": null}

The first line that the keeper writes, without a request, is ``{"folder": "/tmp/replswitch-…"}``. The answer
to a request that fails is ``{"error": "…"}``.

A server that refuses to run as root runs under another account, which then owns the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_EVERY = 0.5
"""Seconds between two checks whether the process that started the keeper still runs."""

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>; see prctl(2)."""

PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>; see prctl(2)."""

IPC_RMID = 0
"""From <linux/ipc.h>; see shmctl(2)."""

SEGMENTS = Path("/proc/sysvipc/shm")
"""Linux's list of shared memory segments: key, id, permissions, size, creator, and more; see proc(5)."""

REMOVE_WITHIN = 10.0
"""Seconds for which the removal of the folder is repeated, because a server that was just killed may still write."""


class Keeper:
    """The folder, and the processes that were started in it.

    Args:
        base: the directory in which the folder is made.
        account: the user id and the group id under which the processes run; empty for those of the keeper.
    """

    def __init__(self, base: str, account: tuple[int, ...] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="replswitch-", dir=base))
        self.account: dict[str, Any] = {}
        if account:
            os.chown(self.folder, *account)
            self.account = {"user": account[0], "group": account[1], "extra_groups": []}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and return its answer."""
        if request["do"] == "start":
            return {"pid": self.start(request["name"], request["argv"], request["log"])}
        if request["do"] == "kill":
            return {"code": self.kill(request["name"])}
        return {"code": self.processes[request["name"]].poll()}

    def start(self, name: str, argv: list[str], log: str) -> int:
        """Start a process in a session of its own. Its output is appended to the file ``log``."""
        with Path(log).open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the command comes from the process that started us
                argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_keeper if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads
                **self.account,
            )
        self.processes[name] = process
        return process.pid

    def kill(self, name: str) -> int:
        """Kill a process and its children, wait until it is gone, and return its exit code."""
        process = self.processes[name]
        children: list[int] = []
        if process.poll() is None:
            # The process has a session of its own, so its process group has the same id. No other process can get this
            # id before wait() returns.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGSTOP)  # so that it starts no child that is not killed
                children = children_of(process.pid)
                os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = process.wait()
        for child in children:
            with contextlib.suppress(ChildProcessError):  # it was in no other session, or another process adopted it
                os.waitpid(child, 0)
        remove_shared_memory(process.pid)
        return code

    def close(self) -> None:
        """Kill all processes, and remove the folder."""
        for name in self.processes:
            self.kill(name)
        deadline = time.monotonic() + REMOVE_WITHIN
        while self.folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                time.sleep(0.05)


def die_with_keeper() -> None:
    """Make Linux kill this new child process when the keeper ends, even by ``kill -9``."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of a killed server's children, so that it can wait for their end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children. killpg does not reach PostgreSQL's, which have other sessions."""
    if sys.platform == "linux":
        table = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # The second field is the name of the program in parentheses; the parent is the fourth.
                table.append((entry.parent.name, entry.read_text().rpartition(")")[2].split()[1]))
    else:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607 - POSIX
        table = [(child, parent) for child, parent in map(str.split, listed.stdout.splitlines())]
    return [int(child) for child, parent in table if int(parent) == pid]


def remove_shared_memory(pid: int) -> None:
    """On Linux, remove the segments of System V that a killed process has made, because the kernel keeps them."""
    with contextlib.suppress(FileNotFoundError):
        for line in SEGMENTS.read_text().splitlines()[1:]:
            _, segment, _, _, creator, *_ = line.split()
            if int(creator) == pid:
                ctypes.CDLL(None).shmctl(int(segment), IPC_RMID, None)


def requests(parent: int) -> Iterator[dict[str, Any]]:
    """Yield the requests that come in, until the pipe closes or ``parent`` is no longer our parent.

    A process that the parent forked may have inherited its end of the pipe and still run. So the pipe alone
    does not show whether the parent is gone.
    """
    unread = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], LOOK_EVERY)[0]:
            continue
        received = os.read(0, 65536)
        if not received:
            return
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            yield json.loads(line)


def write(answer: dict[str, Any]) -> None:
    """Write one answer to the pipe. `requests` notices if the parent has ended."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def main(base: str, *account: str) -> None:
    """Serve requests until the process that started the keeper ends, then remove everything."""
    parent = os.getppid()
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    adopt_orphans()
    keeper = Keeper(base, tuple(map(int, account)))
    try:
        write({"folder": str(keeper.folder)})
        for request in requests(parent):
            try:
                answer = keeper.answer(request)
            except (OSError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            write(answer)
    finally:
        # A second signal must not cut the clean-up short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
