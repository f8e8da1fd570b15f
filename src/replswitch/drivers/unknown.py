"""The base class for drivers whose connections SQLAlchemy opens: asyncio drivers, and drivers unknown to replswitch.

A statement makes their connections read-only, if the database has such a statement. replswitch cannot detect their
writes, so markers have no positions (P3), except with the asyncio drivers in `replswitch.drivers.async_mysql`,
`replswitch.drivers.async_postgresql` and `replswitch.drivers.async_sqlite`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers import Driver, Fault, WriteTracker, Written
from replswitch.drivers.mysql import MySQLFamilyDriver
from replswitch.drivers.one_host import refuse_check_of_host
from replswitch.drivers.postgresql import PostgreSQLFamilyDriver
from replswitch.drivers.sqlite3 import DRIVER as SQLITE3
from replswitch.errors import ConfigurationError
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers import Raw
    from replswitch.positions import Position

_MYSQL: Final = MySQLFamilyDriver()

# The kind of server, its driver, and the statement that makes a session read-only, by the name of the dialect.
_DIALECTS: Final[dict[str, tuple[str, Driver, str]]] = {
    "mysql": ("mysql", _MYSQL, "SET SESSION TRANSACTION READ ONLY"),
    "mariadb": ("mysql", _MYSQL, "SET SESSION TRANSACTION READ ONLY"),
    "sqlite": ("sqlite", SQLITE3, "PRAGMA query_only = ON"),
    "postgresql": ("", PostgreSQLFamilyDriver(), "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
}

# read_only_sql_transaction: https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY_TRANSACTION: Final = "25006"


class UnknownDriver(Driver, WriteTracker):
    """The `replswitch.drivers.Driver` for connections that SQLAlchemy opens. It cannot detect their writes.

    Args:
        dialect: the dialect of the engine.
        in_memory: its database is in memory.

    Attributes:
        connects_to_host: the driver connects to the host in its arguments, so one address of the host also works.
    """

    opens_connections = False
    connects_to_host = False

    def __init__(self, dialect: Any, *, in_memory: bool = False) -> None:
        if dialect.name not in _DIALECTS:
            raise ConfigurationError(
                f"replswitch cannot make sessions of {dialect.name} read-only, so a write in slave "
                "state might be lost. Use it with MariaDB, MySQL, SQLite or PostgreSQL."
            )
        super().__init__()
        self.module = dialect.loaded_dbapi
        self.engine, self._family, self._read_only_statement = _DIALECTS[dialect.name]
        self.in_memory = in_memory
        self.reads_may_lock = self._family.reads_may_lock
        self._dialect = dialect

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the host with its port, or the name of the file."""
        if self.engine == "sqlite":
            return str(settings.get("database") or self._dialect.name)
        return self._family.address(settings)

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return the same text as replswitch's own driver for this server, because another engine may use that driver.

        A database in memory has a location of its own.
        """
        return f"{os.getpid()} {id(self)}" if self.in_memory else self._family.location(settings)

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port. Refuse settings with which TLS would verify the address and not the name."""
        name = self._dialect.driver
        if not self.connects_to_host:
            raise ConfigurationError(
                f"{what} does not work with {name}: replswitch cannot make it connect to one address of a host."
                " Leave the option out."
            )
        refuse_check_of_host(what, name, settings.get("ssl"))
        return self._family.host_to_look_up(settings, what)

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database; "main" for SQLite, where each server has another file name."""
        return self._family.schema(settings)

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Make the connection to a slave read-only."""
        if read_only:
            cursor = raw.cursor()
            cursor.execute(self._read_only_statement)
            cursor.close()
            raw.commit()  # PostgreSQL drivers have begun a transaction, and a rollback would undo the statement

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return this object, which treats every commit as a write."""
        return self

    def pop_write_status(self) -> Position | Written:
        """Return `Written.YES`, because something may have been written, and its position is unknown."""
        fall_back_to_clock(f"The driver {self._dialect.driver} reports no positions")
        return Written.YES

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error, by its code or by what SQLAlchemy knows about the driver."""
        if self.engine == "mysql":
            return _MYSQL.classify(error)
        if _READ_ONLY_TRANSACTION in {getattr(error, name, None) for name in ("sqlstate", "pgcode")}:
            return Fault.READ_ONLY
        fault = SQLITE3.classify(error)
        is_lost = isinstance(error, self.module.Error) and self._dialect.is_disconnect(error, None, None)
        return Fault.LOST if fault is Fault.OTHER and is_lost else fault
