"""How the connections of an engine are opened: by replswitch's own drivers, so that they tell of what is written.

The pool stays the engine's, and so do its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.servers import Link
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.pooled import LINK, OUR_OWN, PoolPort
from replswitch.state import get_stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Server

# Not settings of our driver's: connections may change threads, and how sqlite3 begins is set when it is open.
_DROPPED: Final = {"check_same_thread", "isolation_level"}

# What the `info` of a connection keeps besides: what has opened it, and whether the pool has not lent it yet.
_OPENED_BY: Final = "replswitch.opened_by"
_FRESH: Final = "replswitch.fresh"


def settings_of(engine: Engine) -> dict[str, Any]:
    """Return the settings of an engine's address, as the driver takes them."""
    return _settings(*engine.dialect.create_connect_args(engine.url))


def _settings(positional: Any, named: Any) -> dict[str, Any]:
    settings = {name: value for name, value in named.items() if name not in _DROPPED}
    if positional:
        settings["database"] = positional[0]
    return settings


class Opener:
    """Opens the connections of one engine, and lends none that lead nowhere.

    Args:
        driver: of the engine.
        server: to which it leads. On the links to one of slave state, the database itself refuses writes (S7).
        master: whose connections these are, where the settings are another engine's (S10).

    Attributes:
        settings: with which the latest connection was opened; None before the first one.
    """

    def __init__(self, driver: Driver, server: Server, master: tuple[Engine, Opener] | None = None) -> None:
        self._driver = driver
        self._server = server
        self._master = master
        self.settings: dict[str, Any] | None = None

    def listen(self, engine: Engine) -> None:
        """Open the connections of ``engine`` from now on."""
        if self._driver.opens_connections:
            event.listen(engine, "do_connect", self._open)
        if self._driver.begins_with_writes:
            event.listen(engine, "begin", self._begin)
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "checkout", self._look)

    def _open(self, _: Any, entry: ConnectionPoolEntry | None, positional: Any, named: Any) -> Raw:
        settings = self.settings = _settings(positional, named)
        if self._master is not None:
            master, opener = self._master
            if opener.settings is None:
                loan = master.raw_connection()
                loan.info[OUR_OWN] = True
                loan.close()
            settings = opener.settings or settings
        self._driver.check(settings, f"the engine of {self._driver.address(settings)}")
        read_only = self._server.state == SLAVE
        raw = self._driver.open(settings, read_only=read_only)
        self._driver.adopt(raw, read_only=read_only, begin=named.get("isolation_level", ""))
        if entry is not None:
            entry.info[_OPENED_BY] = self
            entry.info[_FRESH] = True
        return raw

    def _prepare(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        driver = self._driver
        if driver.opens_connections and entry.info.get(_OPENED_BY) is not self:
            raise ConfigurationError(
                "An engine that replicate() got opens its connections by a function of its own (creator=…, pool=…, or "
                'another listener for "do_connect"). Give create_engine() the address and connect_args instead, so '
                "that replswitch can open them."
            )
        if self._server.state == SLAVE and driver.read_only_statement:
            cursor = raw.cursor()
            cursor.execute(driver.read_only_statement)
            cursor.close()
            raw.commit()  # drivers of PostgreSQL have begun a transaction, and its rollback would take this back
        link = entry.info[LINK] = Link(self._server, raw, driver)
        if driver.opens_connections:
            link.writes.pop_write_status()  # what SQLAlchemy sends to set a connection up is no write

    def _look(self, raw: Raw, entry: ConnectionPoolEntry, _: Any) -> None:
        link: Link | None = entry.info.get(LINK)
        if link is None:  # in memory, and opened before replicate() was called
            entry.info[LINK] = Link(self._server, raw, self._driver)
        elif link.opened_at < self._server.lost_at or not self._driver.alive(raw):
            raise DisconnectionError("The server has closed the connection.")  # the pool opens another in its place

    def _begin(self, connection: Connection) -> None:
        self._driver.begin_adopted(connection.connection.dbapi_connection)


def replace_links_to_former_masters(engine: Engine, database: Database, driver: Driver) -> None:
    """Let the master's pool replace connections that a failover has left open, where they lack what must be seen."""
    port: Any = PoolPort(driver)

    def look(_: Raw, entry: ConnectionPoolEntry, __: Any) -> None:
        frame = get_stack()
        if entry.info.pop(_FRESH, False) or frame is None:
            return  # one that was opened just now leads to the server that has the name
        if database.leads_to_former_master(frame.scope, entry.info[LINK], port):
            raise InvalidatePoolError("The connection leads to a former master.")  # and so do the others

    event.listen(engine, "checkout", look)


def roll_back_quietly(engine: Engine, driver: Driver, server: Server) -> None:
    """Let a transaction be rolled back without an error where the connection is lost: the server does it.

    A session that has only read ends like this, and what it has read is good. A slave's transaction is committed so as
    well, whatever the error: nothing of it can be lost, and the session must still commit on the master.
    """
    dialect: Any = engine.dialect  # whose methods are written over, for this engine alone
    roll_back = dialect.do_rollback

    def end(raw: Any) -> None:
        try:
            roll_back(raw)
        except driver.module.Error as error:
            if not hasattr(raw, "invalidate") or (
                server.state == MASTER and not driver.is_gone(error, raw.dbapi_connection)
            ):
                raise
            raw.invalidate(error)

    dialect.do_rollback = end
    if server.state == SLAVE:
        dialect.do_commit = end
