"""A lock that is free in a forked child process, even if a thread of the parent held it."""

from __future__ import annotations

from os import getpid
from threading import RLock
from typing import Any


class ProcessLock:
    """A context manager with a separate lock for each process id, because Python's hooks do not see every fork (S12).

    It is reentrant: the garbage collector may return a connection to its pool at any time, even while a lock is held.
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}

    def __enter__(self) -> None:
        process = getpid()
        lock = self._locks.get(process) or self._locks.setdefault(process, RLock())  # one for all threads
        lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._locks[getpid()].release()
