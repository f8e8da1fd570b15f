"""sqlite3 of the standard library. For tests, demonstrations and development: SQLite does not replicate."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers import Written
from replswitch.errors import ConfigurationError
from replswitch.options import refuse_unknown
from replswitch.positions.sqlite import SQLitePosition, note_beside

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.positions import Position

# Ours to decide: transactions are begun and ended by replswitch, and links move between threads.
_OURS: Final = {"isolation_level", "autocommit", "check_same_thread", "factory"}
_SETTINGS: Final = {"database", "timeout", "detect_types", "cached_statements", "uri"}


class _Connection(sqlite3.Connection):
    """A connection that remembers how many changes were already asked about."""

    changes_seen = 0
    #: Whether the file is the master of a `replswitch.testing.SQLitePair`, whose slaves can be asked for positions.
    tells = False

    def rollback(self) -> None:
        if self.in_transaction:  # pools roll back to be sure, behind a commit that nobody has asked about yet
            super().rollback()
            self.changes_seen = self.total_changes  # which a rollback does not lower


class SQLiteDriver:
    """See `replswitch.drivers.Driver`. What tells of a write is ``total_changes``: DDL goes unnoticed."""

    module = sqlite3
    tells_of_writes = True
    factory = _Connection

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse unknown settings, a missing file name, and databases in memory."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is replswitch\'s own to make with sqlite3. Leave it out.'
            )
        refuse_unknown(f"setting of {server}", settings, _SETTINGS)
        database = settings.get("database")
        if not isinstance(database, str | Path) or not str(database):
            raise ConfigurationError(f'{server} has no "database". With sqlite3 it is the path of a file.')
        if ":memory:" in str(database) or "mode=memory" in str(database):
            raise ConfigurationError(
                f"{server} is a database in memory, where every link would see an empty database of its own. "
                'Give a file as "database".'
            )

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the file."""
        return Path(str(settings["database"]).partition("?")[0]).name

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return "main", as SQLite calls every database: its file has another name on each server."""
        return "main"

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> _Connection:
        """Open the file; a slave's is never created."""
        arguments = dict(settings)
        if read_only and not arguments.get("uri"):
            # Not mode=ro: in WAL mode a reader has to write to the files beside the database.
            arguments |= {
                "database": Path(arguments["database"]).absolute().as_uri() + "?mode=rw",
                "uri": True,
            }
        raw: _Connection = sqlite3.connect(
            **arguments, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        self.adopt(raw, read_only=read_only)
        return raw

    def adopt(self, raw: _Connection, *, read_only: bool) -> None:
        """Make a connection ready that was opened elsewhere, with `factory` as its class."""
        if read_only:
            raw.execute("PRAGMA query_only = ON").close()
        else:
            file = _file(raw)  # of a database in memory there is none
            raw.tells = bool(file) and note_beside(file).exists()
            raw.changes_seen = raw.total_changes

    def alive(self, raw: _Connection) -> bool:
        """A file cannot hang up."""
        return True

    def reusable(self, raw: _Connection) -> bool:
        """Roll back what is open."""
        if raw.in_transaction:
            self.rollback(raw)
        return True

    def begin(self, raw: _Connection) -> None:
        """Begin a deferred transaction."""
        raw.execute("BEGIN").close()

    def commit(self, raw: _Connection) -> None:
        """Commit."""
        raw.commit()

    def rollback(self, raw: _Connection) -> None:
        """Roll back, and forget the changes that were counted."""
        raw.rollback()

    def in_transaction(self, raw: _Connection) -> bool:
        """Return sqlite3's own answer."""
        return raw.in_transaction

    def take_written(self, raw: _Connection) -> Position | Written:
        """Compare the number of rows changed with what it was; inside a transaction nothing is committed yet."""
        if raw.in_transaction:
            return Written.NO
        seen, raw.changes_seen = raw.changes_seen, raw.total_changes
        if seen == raw.changes_seen:
            return Written.NO
        return SQLitePosition(time.time_ns()) if raw.tells else Written.YES

    def learns_behind_rows(self, raw: _Connection) -> bool:
        """A write is counted when it is done."""
        return False

    def latest(self, raw: _Connection) -> Position | None:
        """Nobody asks."""
        return None

    def ask_written(self, raw: _Connection, since: Position | None) -> Position | Written:
        """Nothing is left to ask."""
        return Written.NO

    def disown_written(self, raw: _Connection, *, with_rows: bool) -> None:
        """Nothing: the count goes on by itself."""

    def prepare(self, raw: _Connection) -> None:
        """Nothing: there is no question."""

    def standing(self, raw: _Connection) -> tuple[Hashable, Position | None]:
        """Return the file and what is noted beside it."""
        file = _file(raw)
        note = note_beside(file)
        text = note.read_text() if note.exists() else ""
        return file, SQLitePosition.parse(text) if text else None

    def wait_for(self, raw: _Connection, position: Position, seconds: float) -> bool:
        """Look at the note again and again."""
        until = time.monotonic() + seconds
        while True:
            reached = self.standing(raw)[1]
            if reached is not None and reached.includes(position):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)

    def seconds_behind(self, raw: _Connection) -> float | None:
        """Nobody tells."""
        return None

    def read_on(self, raw: _Connection) -> None:
        """Nothing: a statement of SQLite has one result."""

    def refused_write(self, error: BaseException) -> bool:
        """SQLITE_READONLY in all its extended forms."""
        return _code(error) == sqlite3.SQLITE_READONLY

    def is_full(self, error: BaseException | None) -> bool:
        """A file takes as many as come."""
        return False

    def unreachable(self, error: BaseException) -> bool:
        """SQLITE_CANTOPEN: the file is not there."""
        return _code(error) == sqlite3.SQLITE_CANTOPEN

    def conflicted(self, error: BaseException) -> bool:
        """Never: in WAL mode readers wait for nobody."""
        return False

    def timed_out(self, raw: _Connection, error: BaseException) -> bool:
        """Never: a file answers."""
        return False

    def not_sent(self, error: BaseException) -> bool:
        """Never: what fails may have run."""
        return False

    def read_only_master(self, error: BaseException) -> bool:
        """SQLITE_READONLY: the file's permissions have changed."""
        return self.refused_write(error)

    def is_lost_master(self, error: BaseException) -> bool:
        """Either of the two."""
        return self.unreachable(error) or self.read_only_master(error)

    def rolled_back(self, raw: _Connection, error: Exception) -> bool:
        """SQLite rolls back by itself when a disk is full and the like."""
        return not raw.in_transaction


def _file(raw: sqlite3.Connection) -> str:
    """Return the path of the file that is open."""
    return str(raw.execute("PRAGMA database_list").fetchone()[2])


def _code(error: BaseException) -> int:
    # The low byte is the primary code: https://www.sqlite.org/rescode.html
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


DRIVER: Final = SQLiteDriver()
