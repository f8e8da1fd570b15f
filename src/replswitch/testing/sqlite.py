"""A throw-away pair of SQLite files. A thread copies the commits from one to the other."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.testing.copier import Copier
from replswitch.testing.errors import PairError
from replswitch.testing.kept import Kept
from replswitch.testing.pair import MASTER, ReplicatedPair

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


class SQLitePair(ReplicatedPair):
    """A SQLite file and its slaves, in WAL mode. :class:`~replswitch.testing.copier.Copier` replicates.

    The pair needs nothing but Python and starts at once. The lag may have a fraction. It is made for small
    databases, because each commit copies the whole file. Without servers, some things differ:

    * After ``kill(name)`` the file cannot be opened ("unable to open database file"). A connection that was
      used before still works, and its writes to a killed master are replicated after ``start(name)``.
    * A write to the file of a slave is refused only on connections with ``PRAGMA query_only`` (those of
      :meth:`connect` and of ``replswitch.connect()``). The next copy undoes the write.

    Args:
        slaves: how many slaves; 1 or more.
    """

    driver: ClassVar[str] = "sqlite3"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self._kept: Kept | None = None
        self._copier: Copier | None = None
        self._down: set[str] = set()

    def connect(self, name: str | None = None) -> sqlite3.Connection:
        """Return a sqlite3 connection to one file, with ``isolation_level=None``. It is read-only for a slave."""
        name = self._known(name or self.master_name)
        connection = sqlite3.connect(self._file(name), isolation_level=None)
        if name != self.master_name:
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _parameters(self, name: str) -> dict[str, Any]:
        return {"database": str(self._file(name))}

    def _file(self, name: str) -> Path:
        if self._kept is None:
            raise PairError("the pair is closed")
        return self._kept.folder / f"{name}.db"

    @property
    def _replication(self) -> Copier:
        if self._copier is None:
            raise PairError("the pair is closed")
        return self._copier

    def _create(self) -> None:
        self._down.clear()
        self._kept = Kept()
        for name in self.names:
            with closing(sqlite3.connect(self._file(name))) as connection:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self._copier = Copier(self._file(MASTER), {name: self._file(name) for name in self.slave_names})
        self._copier.set_lag(self._lag)
        self._copier.start()

    def _remove(self) -> None:
        copier, self._copier = self._copier, None
        kept, self._kept = self._kept, None
        try:
            if copier is not None:
                copier.close()
        finally:
            if kept is not None:
                kept.close()

    def _is_up(self, name: str) -> bool:
        return name not in self._down

    def _kill_server(self, name: str) -> None:
        """Replace the file by a dangling symbolic link. Each step is atomic for processes that open the file."""
        file = self._file(name)
        self._replication.set_idle(name, True)
        file.with_suffix(".killed").hardlink_to(file)
        nowhere = file.with_suffix(".nowhere")
        nowhere.symlink_to(file.parent / "the server was killed" / file.name)
        nowhere.replace(file)
        self._down.add(name)

    def _start_server(self, name: str) -> None:
        file = self._file(name)
        file.with_suffix(".killed").replace(file)
        self._down.discard(name)
        self._replication.set_idle(name, name in self._stopped)

    def _set_lag(self, name: str) -> None:
        self._replication.set_lag(self._lag)

    def _stop_replication(self, name: str) -> None:
        self._replication.set_idle(name, True)

    def _start_replication(self, name: str) -> None:
        self._replication.set_idle(name, False)

    def _master_position(self) -> int:
        return self._replication.position()

    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        self._replication.wait(name, position, deadline)

    def _wait_settled(self, name: str) -> None:
        """Return at once: changes are copied between files, without a connection."""
