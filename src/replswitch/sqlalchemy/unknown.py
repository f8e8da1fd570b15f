"""Drivers that replswitch does not open itself: asyncio ones, and those of other databases.

They are routed all the same. Their connections are made read-only by a statement where that is possible, and nothing
tells of their writes, so markers hold by time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Never, cast

from replswitch.drivers import Written, mysql
from replswitch.drivers.sqlite3 import DRIVER as SQLITE3
from replswitch.errors import PositionError
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from sqlalchemy import Dialect

    from replswitch.drivers import Raw
    from replswitch.positions import Position

# What makes a session read-only, by the name of the dialect.
_READ_ONLY: Final = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
}

# read_only_sql_transaction: https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY_TRANSACTION: Final = "25006"


class UnknownDriver:
    """See `replswitch.drivers.Driver`. SQLAlchemy opens the connections.

    Args:
        dialect: of the engine.
    """

    tells_of_writes = False
    module: ModuleType  # or what SQLAlchemy has in its place

    def __init__(self, dialect: Dialect) -> None:
        self.module = cast("ModuleType", dialect.loaded_dbapi)
        self._dialect = dialect
        self._is_mysql = dialect.name in ("mysql", "mariadb")

    @property
    def read_only_statement(self) -> str | None:
        """What makes a connection read-only; None where nobody knows."""
        return _READ_ONLY.get(self._dialect.name)

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Nothing is known of its settings."""

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the host with its port, or the name of the file."""
        host, port = settings.get("host"), settings.get("port")
        return f"{host}:{port}" if host and port else str(host or settings.get("database") or self._dialect.name)

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database; of a file of SQLite it is another one on each server."""
        return "main" if self._dialect.name == "sqlite" else str(settings.get("database") or "")

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> Never:
        """SQLAlchemy does."""
        raise NotImplementedError

    def alive(self, raw: Raw) -> bool:
        """Nobody can tell."""
        return True

    def reusable(self, raw: Raw) -> bool:
        """SQLAlchemy's pool sees to that."""
        return True

    def begin(self, raw: Raw) -> None:
        """SQLAlchemy does."""

    def commit(self, raw: Raw) -> None:
        """Commit."""
        raw.commit()

    def rollback(self, raw: Raw) -> None:
        """Roll back."""
        raw.rollback()

    def in_transaction(self, raw: Raw) -> bool:
        """Nobody can tell."""
        return False

    def take_written(self, raw: Raw) -> Position | Written:
        """Say that something may have been written."""
        fall_back_to_clock(f"Nothing tells of positions through the driver {self._dialect.driver}")
        return Written.YES

    def learns_behind_rows(self, raw: Raw) -> bool:
        """Nothing is learnt at all."""
        return False

    def latest(self, raw: Raw) -> Position | None:
        """Nobody can tell."""
        return None

    def ask_written(self, raw: Raw, since: Position | None) -> Position | Written:
        """Say so again."""
        return Written.YES

    def disown_written(self, raw: Raw, *, with_rows: bool) -> None:
        """Nothing is kept."""

    def prepare(self, raw: Raw) -> None:
        """Nothing is kept."""

    def standing(self, raw: Raw) -> Never:
        """Nobody asks."""
        raise PositionError(f"replswitch does not ask a server through {self._dialect.driver} for its position.")

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Nobody asks."""
        return False

    def seconds_behind(self, raw: Raw) -> float | None:
        """Nobody asks."""
        return 0

    def read_on(self, raw: Raw) -> None:
        """SQLAlchemy does."""

    def refused_write(self, error: BaseException) -> bool:
        """Go by the error's code."""
        if self._is_mysql:
            return mysql.refused_write(error)
        states = {getattr(error, name, None) for name in ("sqlstate", "pgcode")}
        return _READ_ONLY_TRANSACTION in states or SQLITE3.refused_write(error)

    def is_full(self, error: BaseException | None) -> bool:
        """Go by the error's code, where it is a server's that we know."""
        return self._is_mysql and error is not None and mysql.is_full(error)

    def unreachable(self, error: BaseException) -> bool:
        """Go by the error's code, or by what SQLAlchemy knows of the driver."""
        if self._is_mysql:
            return mysql.unreachable(error)
        if SQLITE3.unreachable(error):
            return True
        return isinstance(error, self.module.Error) and self._dialect.is_disconnect(error, None, None)

    def conflicted(self, error: BaseException) -> bool:
        """Go by the error's code."""
        return self._is_mysql and mysql.conflicted(error)

    def timed_out(self, raw: Raw, error: BaseException) -> bool:
        """Go by the error's words."""
        return self._is_mysql and mysql.timed_out(error)

    def not_sent(self, error: BaseException) -> bool:
        """Go by the error's code."""
        return self._is_mysql and mysql.not_sent(error)

    def read_only_master(self, error: BaseException) -> bool:
        """Go by the error's code."""
        return mysql.read_only_master(error) if self._is_mysql else self.refused_write(error)

    def is_lost_master(self, error: BaseException) -> bool:
        """Either of the two."""
        return self.unreachable(error) or self.read_only_master(error)

    def rolled_back(self, raw: Raw, error: Exception) -> bool:
        """Nobody can tell."""
        return False
