"""The copier, which reproduces the commits of one SQLite file in others, after a lag.

SQLite does not replicate. The copier imitates a slave:

* ``PRAGMA data_version`` changes when another connection, in any process, has committed to the master. The
  copier reads it every few milliseconds, and less often if the last commit was a while ago.
* The backup API then takes a snapshot of the master into memory, and later writes it into the slave in one
  transaction. So a reader of the slave sees the master as it was at some moment, never a part of a transaction.
* A note (a small file) next to the slave's file contains the slave's position, for `replswitch.connect()`.
* Both files are in WAL mode, in which readers and one writer do not wait for each other.

Commits that follow each other faster than the copier checks arrive on the slave together.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from replswitch.positions.sqlite import SQLitePosition, note_beside
from replswitch.testing.errors import NotCaughtUpError, PairError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.005
"""Seconds between two checks of the master soon after a commit."""

LOOK_AT_LEAST_EVERY = 0.05
"""Seconds between two checks of a master without commits. More frequent checks of a pair that no test uses would take
several percent of a processor."""

TOLD_FOR = 1.0
"""Seconds for which notes are written after a copy, because a writer reads the clock a little after its commit."""

WAITING = 200
"""About how many snapshots may wait until the lag has passed. With a longer lag, snapshots are taken less often."""


class Snapshot(NamedTuple):
    """The master as it was at one moment."""

    number: int
    taken: float
    content: sqlite3.Connection
    position: SQLitePosition


class Copier:
    """Copies a master to its slaves from :meth:`start` to :meth:`close`, in a thread of its own.

    Args:
        master: the file to copy from. All files exist already and are in WAL mode.
        slaves: the files to copy to, by name. They equal the master when the copier starts.
    """

    def __init__(self, master: Path, slaves: dict[str, Path]) -> None:
        self._changed = threading.Condition()
        self._lag = 0.0
        self._idle: set[str] = set()
        self._ended = False
        self._error: BaseException | None = None
        self._master = _open(master)
        self._slaves = {name: _open(path) for name, path in slaves.items()}
        self._notes = {name: note_beside(path) for name, path in slaves.items()}
        note_beside(master).touch()
        self._applied = dict.fromkeys(slaves, 0)
        self._version = self._read_version()
        self._snapshots: list[Snapshot] = []
        self._number = 0
        self._looked = 0.0
        self._newest: float | None = None
        self._as_of = SQLitePosition(0)  # until then, the master had the content of the newest snapshot
        self._thread = threading.Thread(target=self._run, name="replswitch-copier", daemon=True)

    def start(self) -> None:
        """Start copying."""
        self._thread.start()

    def close(self) -> None:
        """Stop copying.

        Raises:
            PairError: the copier had failed before; its error is the cause.
        """
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        for connection in (self._master, *self._slaves.values(), *(one.content for one in self._snapshots)):
            connection.close()
        self._check()

    def set_lag(self, seconds: float) -> None:
        """Set the lag, even for the commits that are waiting already."""
        with self._changed:
            self._check()
            self._lag = seconds
            self._changed.notify_all()

    def set_idle(self, name: str, idle: bool) -> None:
        """Stop copying from or to a server; if ``idle`` is False, resume it."""
        with self._changed:
            self._check()
            (self._idle.add if idle else self._idle.discard)(name)
            self._changed.notify_all()

    def position(self) -> int:
        """Check the master now, and return the number of the snapshot that has all its commits.

        Raises:
            PairError: the copier has failed; its error is the cause.
        """
        with self._changed:
            self._check()
            while not self._look():
                self._changed.wait(LOOK_EVERY)
            return self._number

    def wait(self, name: str, position: int, deadline: float) -> None:
        """Wait until a slave has got a snapshot.

        Raises:
            NotCaughtUpError: the slave has not got the snapshot by the deadline (of ``time.monotonic()``).
            PairError: the copier has failed; its error is the cause.
        """
        with self._changed:
            while self._applied[name] < position and name not in self._idle:
                self._check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NotCaughtUpError(
                        f"{name} has not caught up: the master is at snapshot {position}, and {name} at snapshot"
                        f" {self._applied[name]} (lag: {self._lag} s). If the lag does not explain this, a"
                        f" connection holds a write transaction open on {name}.",
                        server=name,
                    )
                self._changed.wait(left)
            if self._applied[name] == self._number and name not in self._idle:
                _replace(
                    self._notes[name], str(self._as_of)
                )  # at once, because a reader that has waited queries the position next

    def _check(self) -> None:
        if self._error is not None:
            raise PairError(
                f"the copying of commits has failed, so the slaves get no more: {self._error}"
            ) from self._error

    def _run(self) -> None:
        try:
            with self._changed:
                while not self._ended:
                    if time.monotonic() >= self._looked + self._lag / WAITING:
                        self._look()
                    self._apply()
                    self._tell()
                    quiet = time.monotonic() - (self._newest or 0)
                    self._changed.wait(min(max(LOOK_EVERY, quiet / 20), LOOK_AT_LEAST_EVERY))
        except BaseException as error:
            logger.exception("the copying of commits has failed")
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _look(self) -> bool:
        """Take a snapshot if the master has changed. Return False if the master is locked and must be checked again."""
        self._looked = time.monotonic()
        if "master" in self._idle:
            return True
        position = SQLitePosition(time.time_ns())  # before the copy is begun
        version = self._read_version()
        if version == self._version:
            self._as_of = position
            return True
        content = sqlite3.connect(":memory:", check_same_thread=False)
        if not _copy(self._master, content):
            content.close()
            return False
        self._number += 1
        self._version = version
        self._newest, self._as_of = time.monotonic(), position
        self._snapshots.append(Snapshot(self._number, self._newest, content, position))
        self._changed.notify_all()  # another thread may have taken it
        return True

    def _apply(self) -> None:
        """Give each slave the newest snapshot that is due, and drop the snapshots that are not needed."""
        now = time.monotonic()
        due = [one for one in self._snapshots if one.taken + self._lag <= now]
        if not due:
            return
        newest = due[-1]
        for name, slave in self._slaves.items():
            behind = self._applied[name] < newest.number
            if behind and name not in self._idle and _copy(newest.content, slave):
                # A backup does not trigger the automatic checkpoint, so the WAL would grow without limit.
                slave.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                _replace(self._notes[name], str(newest.position))
                self._applied[name] = newest.number
                self._changed.notify_all()
        needed = newest.number if min(self._applied.values()) < newest.number else newest.number + 1
        for one in self._snapshots:
            if one.number < needed:
                one.content.close()
        self._snapshots = [one for one in self._snapshots if one.number >= needed]

    def _tell(self) -> None:
        """In the note of each slave with the newest copy, store the time up to which the slave equals the master.

        The position of a commit is the time that its writer reads after the commit. This time may be later than the
        copy that has the commit.
        """
        if self._newest is not None and time.monotonic() < self._newest + self._lag + TOLD_FOR:
            for name, note in self._notes.items():
                if self._applied[name] == self._number and name not in self._idle:
                    _replace(note, str(self._as_of))

    def _read_version(self) -> int:
        return int(self._master.execute("PRAGMA data_version").fetchone()[0])


class _Busy(Exception):  # noqa: N818 - not an error: try again later
    """One of the two databases is locked at the moment."""


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> bool:
    """Copy a whole database in one transaction. Return False if one of the two files is locked at the moment."""

    def progress(status: int, _remaining: int, _total: int) -> None:
        # Without this, backup() retries for as long as the lock is held.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _Busy

    with suppress(_Busy):
        source.backup(target, progress=progress)
        return True
    return False


def _replace(file: Path, text: str) -> None:
    """Write a file so that a reader finds either the old text or the new one."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def _open(path: Path) -> sqlite3.Connection:
    """Return a connection that any thread may use while it holds the copier's lock."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0)
    connection.execute("PRAGMA synchronous = OFF")
    return connection
