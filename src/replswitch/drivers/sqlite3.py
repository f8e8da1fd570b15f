"""sqlite3 of the standard library. For tests, demonstrations and development: SQLite does not replicate."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replswitch.errors import ConfigurationError
from replswitch.options import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ours to decide: transactions are begun and ended by replswitch, and links move between threads.
_OURS: Final = {"isolation_level", "autocommit", "check_same_thread", "factory"}
_SETTINGS: Final = {"database", "timeout", "detect_types", "cached_statements", "uri"}


class _Connection(sqlite3.Connection):
    """A connection that remembers how many changes were already asked about."""

    changes_seen = 0


class SQLiteDriver:
    """See `replswitch.drivers.Driver`. What tells of a write is ``total_changes``: DDL goes unnoticed."""

    module = sqlite3

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

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> sqlite3.Connection:
        """Open the file; a slave's is never created."""
        arguments = dict(settings)
        if read_only and not arguments.get("uri"):
            # Not mode=ro: in WAL mode a reader has to write to the files beside the database.
            arguments |= {
                "database": Path(arguments["database"]).absolute().as_uri() + "?mode=rw",
                "uri": True,
            }
        raw = sqlite3.connect(**arguments, isolation_level=None, check_same_thread=False, factory=_Connection)
        if read_only:
            raw.execute("PRAGMA query_only = ON").close()
        return raw

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
        raw.changes_seen = raw.total_changes

    def in_transaction(self, raw: _Connection) -> bool:
        """Return sqlite3's own answer."""
        return raw.in_transaction

    def take_written(self, raw: _Connection) -> bool:
        """Compare the number of rows changed with what it was; inside a transaction nothing is committed yet."""
        if raw.in_transaction:
            return False
        seen, raw.changes_seen = raw.changes_seen, raw.total_changes
        return seen != raw.changes_seen

    def read_on(self, raw: _Connection) -> None:
        """Nothing: a statement of SQLite has one result."""

    def refused_write(self, error: BaseException) -> bool:
        """SQLITE_READONLY in all its extended forms."""
        return _code(error) == sqlite3.SQLITE_READONLY

    def unreachable(self, error: BaseException) -> bool:
        """SQLITE_CANTOPEN: the file is not there."""
        return _code(error) == sqlite3.SQLITE_CANTOPEN

    def rolled_back(self, raw: _Connection, error: Exception) -> bool:
        """SQLite rolls back by itself when a disk is full and the like."""
        return not raw.in_transaction


def _code(error: BaseException) -> int:
    # The low byte is the primary code: https://www.sqlite.org/rescode.html
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


DRIVER: Final = SQLiteDriver()
