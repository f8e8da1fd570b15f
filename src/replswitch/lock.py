"""A lock that a fork leaves open in the child, whichever thread held it."""

from __future__ import annotations

from os import getpid
from threading import RLock
from typing import Any


class ProcessLock:
    """A lock of each process, for ``with``. Python's hooks do not see every fork, so the process id decides (S12).

    It is reentrant: the garbage collector may give a connection back at any moment, also while a lock is held.
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}

    def __enter__(self) -> None:
        process = getpid()
        lock = self._locks.get(process) or self._locks.setdefault(process, RLock())  # one for all threads
        lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._locks[getpid()].release()
