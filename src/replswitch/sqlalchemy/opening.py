"""How the connections of an engine are opened: by replswitch's own drivers, so that they tell of what is written.

The pool stays the engine's, and so do its settings.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from replswitch.drivers import load_driver
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.servers import FRESH, OUR_OWN
from replswitch.sqlalchemy.unknown import UnknownDriver

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, Raw

# The drivers by the names that SQLAlchemy has for them.
_DRIVERS: Final = {"pymysql": "pymysql", "mysqldb": "mysqlclient", "pysqlite": "sqlite3"}

# Not settings of our driver's: connections may change threads, and how sqlite3 begins is set when it is open.
_DROPPED: Final = {"check_same_thread", "isolation_level"}

_OPENED_BY: Final = "replswitch.opened_by"


def driver_of(engine: Engine) -> Driver:
    """Return the driver that opens an engine's connections."""
    name = _DRIVERS.get(engine.dialect.driver)
    if name is None or is_in_memory(engine):
        return UnknownDriver(engine.dialect)
    return load_driver(name)


def is_in_memory(engine: Engine) -> bool:
    """Say whether an engine's database is one of SQLite's in memory, where each connection may have its own."""
    if engine.dialect.name != "sqlite":
        return False
    file = str(settings_of(engine).get("database") or "")
    return not file or ":memory:" in file or "mode=memory" in file


def settings_of(engine: Engine) -> dict[str, Any]:
    """Return the settings that an engine's address stands for, as the driver takes them."""
    return _settings(*engine.dialect.create_connect_args(engine.url))


def _settings(positional: Any, named: Any) -> dict[str, Any]:
    settings = {name: value for name, value in named.items() if name not in _DROPPED}
    if positional:
        settings["database"] = positional[0]
    return settings


class Opener:
    """Opens the connections of one engine.

    Args:
        driver: of the engine.
        read_only: let the database itself refuse writes (S7).
        master: whose connections these are, where the settings are another engine's (S10).

    Attributes:
        settings: with which the latest connection was opened; None before the first one.
    """

    def __init__(self, driver: Driver, *, read_only: bool, master: tuple[Engine, Opener] | None = None) -> None:
        self._driver = driver
        self._read_only = read_only
        self._master = master
        self.settings: dict[str, Any] | None = None

    def listen(self, engine: Engine) -> None:
        """Open the connections of ``engine`` from now on."""
        if isinstance(self._driver, UnknownDriver):
            if self._read_only:
                event.listen(engine, "connect", self._make_read_only)
            return
        event.listen(engine, "do_connect", self._open)
        event.listen(engine, "connect", self._check)
        event.listen(engine, "checkout", self._look)
        if self._driver.module is sqlite3:
            event.listen(engine, "begin", self._begin)
            event.listen(engine, "rollback", self._rollback)

    def _open(self, _: Any, entry: ConnectionPoolEntry | None, positional: Any, named: Any) -> Raw:
        settings = self.settings = _settings(positional, named)
        if self._master is not None:
            master, opener = self._master
            if opener.settings is None:
                loan = master.raw_connection()
                loan.info[OUR_OWN] = True  # nobody has written through it
                loan.close()
            settings = opener.settings or settings
        self._driver.check(settings, f"the engine of {self._driver.address(settings)}")
        raw = self._driver.open(settings, read_only=self._read_only)
        # Our drivers open in autocommit mode, and SQLAlchemy begins transactions.
        if self._driver.module is sqlite3:
            raw.isolation_level = "" if self._read_only else named.get("isolation_level", "")
        else:
            raw.autocommit(False)
        if entry is not None:
            entry.info[_OPENED_BY] = self
            entry.info[FRESH] = True
        return raw

    def _check(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        if entry.info.get(_OPENED_BY) is not self:
            raise ConfigurationError(
                "An engine that replicate() got opens its connections by a function of its own (creator=…, pool=…, or "
                'another listener for "do_connect"). Give create_engine() the address and connect_args instead, so '
                "that replswitch can open them."
            )
        if not self._read_only:
            self._driver.take_written(raw)  # what SQLAlchemy sends to set a connection up is no write

    def _make_read_only(self, raw: Raw, _: ConnectionPoolEntry) -> None:
        statement = getattr(self._driver, "read_only_statement", None)
        if statement is not None:
            cursor = raw.cursor()
            cursor.execute(statement)
            cursor.close()
            raw.commit()  # drivers of PostgreSQL have begun a transaction, and its rollback would take this back

    def _look(self, raw: Raw, _: ConnectionPoolEntry, __: Any) -> None:
        # The server has hung up meanwhile: the pool opens another connection in its place.
        if not self._driver.alive(raw):
            raise DisconnectionError("The server has closed the connection.")

    def _begin(self, connection: Connection) -> None:
        # sqlite3 would begin with the first statement that writes; so neither reads nor savepoints were in it.
        raw: Any = connection.connection.dbapi_connection
        if raw.isolation_level is not None and not raw.in_transaction:
            raw.execute(f"BEGIN {raw.isolation_level}").close()

    def _rollback(self, connection: Connection) -> None:
        if connection.invalidated:
            return
        raw: Any = connection.connection.dbapi_connection
        if raw.in_transaction:
            self._driver.rollback(raw)  # which forgets what was counted; SQLAlchemy's own finds nothing left


def end_quietly(engine: Engine) -> None:
    """Let a transaction on a slave end without an error, whatever became of the slave.

    Nothing of it can be lost, and an error would keep the session from committing on the master.
    """
    dialect: Any = engine.dialect  # whose methods are written over, for this engine alone
    roll_back = dialect.do_rollback

    def end(raw: Any) -> None:
        try:
            roll_back(raw)
        except dialect.loaded_dbapi.Error as error:
            if not hasattr(raw, "invalidate"):
                raise
            raw.invalidate(error)

    dialect.do_rollback = dialect.do_commit = end


def roll_back_quietly(engine: Engine, driver: Driver) -> None:
    """Let a transaction on the master be rolled back without an error where the connection is lost: the server does it.

    A session that has only read ends like this, and what it has read is good.
    """
    dialect: Any = engine.dialect
    roll_back = dialect.do_rollback

    def end(raw: Any) -> None:
        try:
            roll_back(raw)
        except driver.module.Error as error:
            if not hasattr(raw, "invalidate") or not driver.unreachable(error):
                raise
            raw.invalidate(error)

    dialect.do_rollback = end
