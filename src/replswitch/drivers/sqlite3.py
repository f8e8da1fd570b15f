"""The driver sqlite3 of the standard library, for tests and development only, because SQLite does not replicate."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from replswitch.checking import refuse_unknown
from replswitch.drivers.driver import MUST_STAY_READ_ONLY, Driver, Fault
from replswitch.drivers.written import WriteTracker, Written
from replswitch.errors import ConfigurationError
from replswitch.positions.sqlite import SQLitePosition, note_beside

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from replswitch.positions import Position

# Settings that replswitch sets itself, because it begins and ends transactions, and moves links between threads.
_OURS: Final = {"isolation_level", "autocommit", "check_same_thread", "factory"}
_FAULTS: Final = {
    sqlite3.SQLITE_READONLY: Fault.READ_ONLY,  # on the master, the file's permissions have changed
    sqlite3.SQLITE_CANTOPEN: Fault.UNSENT,  # the file is not there
}

_SETTINGS: Final = {"database", "timeout", "detect_types", "cached_statements", "uri"}


# The pragma that makes a connection read-only, and statements that change a connection.
_QUERY_ONLY: Final = re.compile(
    r"\bPRAGMA\b.{0,200}?\bquery_only\b(?!\W*(?:;|$|=\s*(?:1|ON|TRUE|YES)\b))", re.IGNORECASE | re.DOTALL
)
_CHANGE: Final = re.compile(
    r"\b(?:PRAGMA\b(?!.{0,60}?(?:table_|index_|foreign_key_|_check)).{0,200}?[=(]|ATTACH\b|DETACH\b)",
    re.IGNORECASE | re.DOTALL,
)


def _keep_read_only(raw: Any, sql: str) -> None:
    """Refuse a statement that would make a slave's connection writable (S7). Record a change of the session (S8, S11).

    Raises:
        sqlite3.OperationalError: the same error as for writes on that connection.
    """
    if _QUERY_ONLY.search(sql):
        raise _read_only_error()
    raw.session_changed = raw.session_changed or _CHANGE.search(sql) is not None


def _read_only_error() -> sqlite3.OperationalError:
    # Made here, because a variable in the frame that raises makes a reference cycle, which would keep the link open.
    error = sqlite3.OperationalError(MUST_STAY_READ_ONLY)
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_READONLY, "SQLITE_READONLY"
    return error


class _Buffered(sqlite3.Cursor):
    """Reads all rows at once, because a partly read result would lock the file for the master's writes (S10)."""

    _rows: Iterator[Any] = iter(())

    def execute(self, sql: str, *args: Any) -> Any:
        if not sql.startswith("SELECT"):
            _keep_read_only(self.connection, sql)
        super().execute(sql, *args)
        self._rows = iter(super().fetchall())
        return self

    def executescript(self, sql: str) -> Any:
        _keep_read_only(self.connection, sql)
        return super().executescript(sql)

    def fetchone(self) -> Any:
        for row in self._rows:
            return row
        return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return list(islice(self._rows, size or self.arraysize)) or super().fetchmany()

    def fetchall(self) -> list[Any]:
        return [*self._rows, *super().fetchall()]

    def __next__(self) -> Any:
        for row in self._rows:
            return row
        return super().__next__()

    def close(self) -> None:
        self._rows = iter(())
        super().close()


@lru_cache(maxsize=16)
def _buffered(kind: type[sqlite3.Cursor]) -> type[sqlite3.Cursor]:
    return type(kind.__name__, (_Buffered, kind), {}) if kind is not sqlite3.Cursor else _Buffered


class _Connection(sqlite3.Connection, WriteTracker):
    """A connection that notices writes by the number of rows that were changed since the last check.

    Attributes:
        is_reader: it refuses writes, and holds no lock after a statement outside a transaction.
        is_adopted: SQLAlchemy begins its transactions.
    """

    is_reader = is_adopted = False
    changes_seen = 0
    #: Whether the file is the master of a `replswitch.testing.SQLitePair`, whose slaves can be asked for positions.
    reports_positions = False

    def __del__(self) -> None:
        """Close the connection. Otherwise Python 3.13 would warn of links that the application has not closed."""
        with suppress(sqlite3.ProgrammingError):  # the file could not be opened
            self.close()

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        return super().cursor(_buffered(factory) if self.is_reader else factory)

    def commit(self) -> None:
        super().commit()
        if self.on_write is not None:
            self.on_write(self, False)

    def rollback(self) -> None:
        if self.in_transaction:  # a pool may roll back after a commit whose status was not popped yet
            super().rollback()
            self.changes_seen = self.total_changes  # a rollback does not lower `total_changes`

    def pop_write_status(self) -> Position | Written:
        """Return `Written.NO` in a transaction, and if no row was changed; else a position or `Written.YES`."""
        if self.in_transaction:
            return Written.NO
        seen, self.changes_seen = self.changes_seen, self.total_changes
        if seen == self.changes_seen:
            return Written.NO
        return SQLitePosition(time.time_ns()) if self.reports_positions else Written.YES


class SQLiteDriver(Driver):
    """The `replswitch.drivers.Driver` for sqlite3. It does not notice DDL, which leaves ``total_changes`` unchanged."""

    module = sqlite3
    engine = "sqlite"
    begins_with_writes = True
    commit_waits_for_readers = True
    factory = _Connection

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse unknown settings, a missing file name, and databases in memory."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(f'With sqlite3, replswitch itself sets "{name}" of {server}. Leave it out.')
        refuse_unknown(f"setting of {server}", settings, _SETTINGS)
        database = settings.get("database")
        if not isinstance(database, str | Path) or not str(database):
            raise ConfigurationError(f'{server} has no "database". With sqlite3 it is the path of a file.')
        if ":memory:" in str(database) or "mode=memory" in str(database):
            raise ConfigurationError(
                f"{server} is a database in memory. Each connection to it would see an empty database of its own. "
                'Give a file as "database".'
            )

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the file."""
        return Path(str(settings["database"]).partition("?")[0]).name

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return the absolute path of the file."""
        database = str(settings["database"])
        path = unquote(urlsplit(database).path) if database.startswith("file:") else database
        return str(Path(path).resolve())

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return "main", SQLite's name for every database, because the file has another name on each server."""
        return "main"

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> _Connection:
        """Open the file. The file of a slave is never created."""
        arguments = dict(settings)
        if read_only and not arguments.get("uri"):
            # The mode is not "ro", because in WAL mode a reader has to write to the files beside the database.
            arguments |= {"database": f"{Path(arguments['database']).absolute().as_uri()}?mode=rw", "uri": True}
        raw = _Connection(**arguments, isolation_level=None, check_same_thread=False)
        self.prepare(raw, read_only=read_only)
        return raw

    def prepare(self, raw: _Connection, *, read_only: bool) -> None:
        """Prepare a connection that was opened elsewhere, with `factory` as its class."""
        if read_only:
            raw.execute("PRAGMA query_only = ON").close()
            raw.is_reader = True
        else:
            file = _file(raw)  # a database in memory has none
            raw.reports_positions = bool(file) and note_beside(file).exists()
            raw.changes_seen = raw.total_changes

    def adopt(self, raw: _Connection, *, read_only: bool, begin: str) -> None:
        """Make sqlite3 begin transactions with the level that the engine asks for.

        On a slave's connection, let it begin no transaction, because an idle session in a transaction would lock the
        file for other sessions (S10).
        """
        raw.isolation_level = None if read_only else begin  # type: ignore[assignment]  # the engine's own check
        raw.is_adopted = True

    def begin_adopted(self, raw: _Connection) -> None:
        """Begin the transaction before its first statement, so that reads and savepoints belong to it, too."""
        if raw.isolation_level is not None and not raw.in_transaction:
            raw.execute(f"BEGIN {raw.isolation_level}").close()

    def writes_of(self, raw: _Connection) -> _Connection:
        """Return the connection itself, which is its own write tracker."""
        return raw

    def reusable(self, raw: _Connection) -> bool:
        """Roll back an open transaction. Return False if the session is changed or has temporary tables (S11)."""
        if raw.session_changed:
            return False
        try:
            raw.rollback()
            return raw.execute("SELECT 1 FROM sqlite_temp_master LIMIT 1").fetchone() is None
        except sqlite3.Error:  # the file is gone
            return False

    def in_transaction(self, raw: _Connection) -> bool:
        """Return whether a transaction is open, as sqlite3 itself reports it."""
        return raw.in_transaction

    def fetch_position(self, raw: _Connection) -> tuple[Hashable, Position | None]:
        """Return the path of the database file as the identity, and the position in the small file beside it."""
        file = _file(raw)
        note = note_beside(file)
        text = note.read_text() if note.exists() else ""
        return file, SQLitePosition.parse(text) if text else None

    def classify(self, error: BaseException, raw: _Connection | None = None) -> Fault:
        """Return the meaning of an error, by SQLite's primary code and by whether the transaction is still open.

        SQLite itself rolls back on errors such as a full disk.
        """
        # The low byte is the primary code: https://www.sqlite.org/rescode.html
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FAULTS:
            return _FAULTS[code]
        is_open = raw is None or raw.in_transaction or (raw.is_reader and raw.is_adopted)
        return Fault.OTHER if is_open else Fault.ROLLED_BACK


def _file(raw: sqlite3.Connection) -> str:
    """Return the path of the file that is open."""
    return str(raw.execute("PRAGMA database_list").fetchone()[2])


DRIVER: Final = SQLiteDriver()
