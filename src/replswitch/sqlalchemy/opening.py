"""What happens on the connections of an engine: they are opened, statements run or fail there, and commits.

They are opened by replswitch's own drivers, so that they tell of what is written. The pool stays the engine's, and so
do its settings. What is committed on the master, by whichever session or connection, is recorded in the running scope
(M1, P1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.attempt import Attempt
from replswitch.engine.recording import is_recording
from replswitch.engine.route import Route
from replswitch.engine.servers import Link
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.pooled import LINK, OUR_OWN, PoolPort, is_autocommit, streams, usable
from replswitch.sqlalchemy.route import route_of
from replswitch.state import stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, Raw, WriteTracker
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Server

# Not settings of our driver's: transactions are SQLAlchemy's, connections may change threads, and how sqlite3 begins is
# set when it is open.
_DROPPED: Final = {"autocommit", "check_same_thread", "isolation_level"}

# What the `info` of a connection keeps besides: what has opened it, until the pool lends it.
_OPENED_BY: Final = "replswitch.opened_by"


def settings_of(engine: Engine) -> dict[str, Any]:
    """Return the settings of an engine's address, as the driver takes them."""
    return _settings(*engine.dialect.create_connect_args(engine.url))


def _settings(positional: Any, named: Any) -> dict[str, Any]:
    if named.get("autocommit"):
        raise ConfigurationError(
            'connect_args has "autocommit", of which SQLAlchemy, and so replswitch, does not know. Leave it out, and '
            'give create_engine() isolation_level="AUTOCOMMIT".'
        )
    settings = {name: value for name, value in named.items() if name not in _DROPPED}
    if positional:
        settings["database"] = positional[0]
    return settings


class Opener:
    """Opens the connections of one engine, lends none that lead nowhere, and tells the sessions what happens on them.

    Args:
        driver: of the engine.
        server: to which it leads. On the links to one of slave state, the database itself refuses writes (S7).
        master: whose connections these are, where the settings are another engine's (S10).

    Attributes:
        settings: with which the latest connection was opened; None before the first one.
    """

    def __init__(self, driver: Driver, server: Server, master: Opener | None = None) -> None:
        self._driver = driver
        self._server = server
        self._master = master
        self._port: Any = PoolPort(driver)
        self.settings: dict[str, Any] | None = None

    events: ClassVar[tuple[str, ...]] = ("connect", "begin", "checkout", "after_cursor_execute", "handle_error")

    def listen(self, engine: Engine) -> None:
        """Do so for ``engine`` from now on. The methods have the names of the events."""
        if self._driver.opens_connections:
            event.listen(engine, "do_connect", self._open)
        for name in self.events:
            event.listen(engine, name, getattr(self, f"_{name}"))
        roll_back_quietly(engine, self._driver, self._server)

    def _open(self, _: Any, entry: ConnectionPoolEntry, positional: Any, named: Any) -> Raw:
        settings = self.settings = _settings(positional, named)
        if self._master is not None:
            if self._master.settings is None:
                with self._port.borrowed(self._master._server):
                    pass  # which has opened one
            settings = self._master.settings or settings
        self._driver.check(settings, f"the engine of {self._driver.address(settings)}")
        read_only = self._server.state == SLAVE
        raw = self._driver.open(settings, read_only=read_only)
        self._driver.adopt(raw, read_only=read_only, begin=named.get("isolation_level", ""))
        entry.info[_OPENED_BY] = self
        return raw

    def _connect(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
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

    def _checkout(self, raw: Raw, entry: ConnectionPoolEntry, _: Any) -> None:
        link: Link | None = entry.info.get(LINK)
        if link is None:  # in memory, and opened before replicate() was called
            entry.info[LINK] = Link(self._server, raw, self._driver)
        elif link.opened_at < self._server.lost_at or not self._driver.alive(raw):
            raise DisconnectionError("The server has closed the connection.")  # the pool opens another in its place

    def _begin(self, connection: Connection) -> None:
        if self._driver.begins_with_writes:
            self._driver.begin_adopted(connection.connection.dbapi_connection)

    # What happens on a connection is handed on to the session that has it.

    def _after_cursor_execute(self, connection: Connection, cursor: Any, *about: Any) -> None:
        route = route_of(connection)
        if route is not None:
            route.ran(connection, cursor, about[2])

    def _handle_error(self, context: ExceptionContext) -> None:
        route = route_of(context.connection)
        if route is not None:
            route.failed(context)


class MasterOpener(Opener):
    """Does the same for the master's engine, whose faults count outside sessions, too; and records what is written.

    Attributes:
        database: the database.
    """

    events = (*Opener.events, "commit", "rollback", "checkin", "before_cursor_execute")
    database: Database

    def listen(self, engine: Engine) -> None:
        """Listen, and look for what is written after each commit where the driver does not tell of it."""
        super().listen(engine)
        if not self._driver.opens_connections:
            dialect: Any = engine.dialect
            commit = dialect.do_commit

            def commit_and_look(raw: Any) -> None:
                commit(raw)
                self._look(self._driver.writes_of(raw))

            dialect.do_commit = commit_and_look

    def _checkout(self, raw: Raw, entry: ConnectionPoolEntry, proxy: Any) -> None:
        super()._checkout(raw, entry, proxy)
        frame = stack()
        if entry.info.pop(_OPENED_BY, None) is not None or frame is None:
            return  # one that was opened just now leads to the server that has the name
        if self.database.leads_to_former_master(frame.scope, entry.info[LINK], self._port):
            raise InvalidatePoolError("The connection leads to a former master.")  # and so do the others

    def _connect(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        super()._connect(raw, entry)
        self.database.master_loss.opened(entry.info[LINK])
        if self._driver.opens_connections:
            raw.on_write = self._look  # the driver tells of every commit, also of those that no event tells of

    def _look(self, tracker: WriteTracker, busy: bool = False) -> None:
        self.database.writes.look(tracker, tracker, busy=busy)

    def _commit(self, connection: Connection) -> None:
        route = route_of(connection)
        if route is not None:
            route.before_commit()

    def _before_cursor_execute(self, connection: Connection, *about: Any) -> None:
        if streams(about[3]) or not is_recording():
            # Amid a result nothing can be asked, and what counts for no scope must not be in the answer.
            self._look_last(connection.connection.dbapi_connection)

    def _look_last(self, raw: Raw) -> None:
        tracker = self._driver.writes_of(raw)
        if self._driver.opens_connections or is_autocommit(self._server.source):
            self.database.writes.look(tracker, tracker, at_once=True)

    # In autocommit mode each statement is committed by itself.

    def _after_cursor_execute(self, connection: Connection, cursor: Any, *about: Any) -> None:
        super()._after_cursor_execute(connection, cursor, *about)
        # Amid a result that is still being read nothing can be asked; it is looked at when the connection goes back.
        if is_autocommit(connection) and not streams(about[2]):
            self._look(self._driver.writes_of(connection.connection.dbapi_connection))

    def _rollback(self, connection: Connection) -> None:
        # The application may have used the driver's cursors, for which there is no event.
        if not self._driver.opens_connections and is_autocommit(connection):
            self._look(self._driver.writes_of(connection.connection.dbapi_connection))

    def _checkin(self, raw: Any, entry: ConnectionPoolEntry) -> None:
        if entry.info.pop(OUR_OWN, False) or raw is None:
            return
        self._look_last(raw)  # what no rollback undoes is told without a commit

    def _handle_error(self, context: ExceptionContext) -> None:
        connection, error = context.connection, context.original_exception
        if context.is_pre_ping or not isinstance(error, self._driver.module.Error):
            return
        if connection is None:
            self.database.raise_if_master_is_gone(self._driver, error)
        elif route_of(connection) is not None:
            super()._handle_error(context)
        elif usable(connection):
            port = PoolPort(self._driver)
            try:
                Route(self.database, port).failed(Attempt(repeatable=False), connection.info[LINK], error)
            finally:
                context.is_disconnect = context.is_disconnect or port.dropped is not None


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
            if server.state == MASTER and not driver.is_gone(error, raw.dbapi_connection):
                raise
            raw.invalidate(error)

    dialect.do_rollback = end
    if server.state == SLAVE:
        dialect.do_commit = end
