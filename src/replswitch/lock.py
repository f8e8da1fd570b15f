"""A lock that is free in a forked child process, even if a thread of the parent held it."""

from __future__ import annotations

from os import getpid
from threading import RLock
from typing import Any


class ProcessLock:
    """A context manager with one lock for each process id, so that a forked child never waits for its parent (S12).

    One lock that Python's hooks replace at each fork is not enough, because some servers fork in C, without the hooks.

    The lock is reentrant, because the garbage collector may return a connection to its pool at any time, even while the
    running thread holds the lock.
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}

    def __enter__(self) -> None:
        process = getpid()
        lock = self._locks.get(process) or self._locks.setdefault(process, RLock())  # all threads get the same lock
        lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._locks[getpid()].release()
