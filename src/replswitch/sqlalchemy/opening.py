"""Observe an engine's connections: opening, statements, failures, commits.

replswitch's own drivers open the connections, so that replswitch learns of each write. The engine keeps its pool and
its settings. Each commit on the master is recorded in the running scope, whichever session or connection made it
(M1, P1).
"""

from __future__ import annotations

from functools import partial
from os import getpid
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError

from replswitch.decision import SLAVE
from replswitch.drivers.written import UNKNOWN
from replswitch.engine.attempt import Attempt
from replswitch.engine.recording import is_recording
from replswitch.engine.route import Route
from replswitch.engine.servers import Link
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.ending import before_close, leave_to_parent, note_for_children, roll_back_quietly
from replswitch.sqlalchemy.facts import AUTOCOMMIT, RESOLVE, info_of, level_of, usable
from replswitch.sqlalchemy.pooled import AT, COMMITS_AT_ONCE, LINK, OUR_OWN, ROUTE, PoolPort
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from replswitch.drivers import Driver, Raw, WriteTracker
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Server
    from replswitch.sqlalchemy.route import SessionRoute

# Settings that the drivers of replswitch do not take, because SQLAlchemy manages transactions, because connections may
# change threads, and because the way in which sqlite3 begins a transaction is set after opening.
_DROPPED: Final = {"autocommit", "check_same_thread", "isolation_level"}

# A further key in the `info` of a connection: the `Opener` that opened it, until the pool first lends it.
_OPENED_BY: Final = "replswitch.opened_by"

#: An attribute of the dialect of each replicated engine. Engines made with `execution_options()` share the dialect.
IS_REPLICATED: Final = "is_replicated_by_replswitch"

#: What is wrong with an engine whose pool belongs to another engine, too, as the end of a sentence.
OTHER_POOL: Final = (
    "shares its pool with an engine that create_engine(pool=…) has made, whose writes could not be recorded. "
    "Instead of that engine, use this one, or make one from it with execution_options()."
)


def settings_of(engine: Engine) -> dict[str, Any]:
    """Return the connection settings in an engine's URL, as the driver takes them."""
    return _settings(*engine.dialect.create_connect_args(engine.url.difference_update_query([RESOLVE])))


def _settings(positional: Any, named: Any) -> dict[str, Any]:
    if named.get("autocommit"):
        raise ConfigurationError(
            '"autocommit" is set in connect_args or in the URL. SQLAlchemy does not know of it there, and would treat '
            'each statement as part of a transaction. Leave it out, and pass isolation_level="AUTOCOMMIT" to '
            "create_engine()."
        )
    settings = {name: value for name, value in named.items() if name not in _DROPPED}
    if positional:
        settings["database"] = positional[0]
    return settings


def _without_resolve(_: Any, __: Any, ___: Any, named: dict[str, Any]) -> None:
    """Remove the option of the URL that no driver knows."""
    named.pop(RESOLVE, None)


class Opener:
    """Opens the connections of one engine, replaces lost ones in its pool, and reports events to the sessions.

    Args:
        driver: the driver of the engine.
        server: the server of the engine. On links to a server of slave state, the database refuses writes (S7). Each
            address of its host may be a server of its own (F7). This object opens the connections to these servers,
            too.
        master: the opener of the master's engine, if its settings are to be used for these connections (S10).

    Attributes:
        settings: the settings that opened the latest connection; None before the first one.
    """

    def __init__(self, driver: Driver, server: Server, master: Opener | None = None) -> None:
        self._driver = driver
        self._server = server
        self._master = master
        self._port: Any = PoolPort(driver)
        self.settings: dict[str, Any] | None = None
        self._dialect: Any = None

    events: ClassVar[tuple[str, ...]] = ("connect", "checkout", "handle_error")

    def listen(self, engine: Engine) -> None:
        """Listen to the events of ``engine`` from now on. The method for an event is named like the event.

        These are events of the pool and of the dialect. An event of a connection would make SQLAlchemy look for
        listeners at each step of the connection, so methods of the dialect are replaced instead.
        """
        if RESOLVE in engine.url.query:
            event.listen(engine, "do_connect", _without_resolve)
        event.listen(engine, "do_connect", self._open if self._driver.opens_connections else self._let_open)
        for name in self.events:
            event.listen(engine, name, getattr(self, f"_{name}"))
        dialect: Any = engine.dialect
        self._dialect = dialect
        setattr(dialect, IS_REPLICATED, True)
        for name in ("do_execute", "do_executemany"):
            setattr(dialect, name, partial(self._execute, getattr(dialect, name)))
        dialect.do_execute_no_params = partial(self._execute_no_params, dialect.do_execute_no_params)
        if self._driver.begins_with_writes:
            dialect.do_begin = self._begin
        roll_back_quietly(engine, self._driver, self._server)
        if not self._driver.opens_connections:
            leave_to_parent(engine)

    def _open(self, _: Any, entry: ConnectionPoolEntry, positional: Any, named: Any) -> Raw:
        self.settings = _settings(positional, named)
        settings = self._masters_settings() or self.settings
        self._driver.check(settings, f"the engine of {self._driver.address(settings)}")
        read_only = self._server.state == SLAVE
        raw = self._driver.open(self._located(settings, entry), read_only=read_only)
        self._driver.adopt(raw, read_only=read_only, begin=named.get("isolation_level", ""))
        entry.info[_OPENED_BY] = self
        return raw

    def _masters_settings(self) -> dict[str, Any]:
        """Return the settings of the master's connections, if this engine uses them; else an empty dictionary."""
        if self._master is None:
            return {}
        if self._master.settings is None:
            with self._port.borrowed(self._master._server):
                pass  # borrowing a connection has set its `settings`
        return self._master.settings or {}

    def _located(self, settings: dict[str, Any], entry: ConnectionPoolEntry) -> dict[str, Any]:
        """Return the settings of a connection. If it leads to one address of its host, they have this address (F7)."""
        if (at := entry.info.get(AT)) is None:
            return settings
        server, address = at
        self._driver.host_to_look_up(settings, f'The option "resolve" in the URL of {server.name}')
        return {**settings, "hostaddr": address}

    def _server_of(self, entry: ConnectionPoolEntry) -> Server:
        at = entry.info.get(AT)
        return self._server if at is None else at[0]

    def _let_open(self, dialect: Any, entry: ConnectionPoolEntry, positional: Any, named: dict[str, Any]) -> Raw | None:
        """Open a connection to one address of a host (F7). For others, change the settings; SQLAlchemy opens them."""
        self.settings = settings = {**named, **self._masters_settings()}
        located = self._located(settings, entry)
        arguments = self._driver.arguments(located, read_only=self._server.state == SLAVE)
        if located is not settings:
            return dialect.connect(*positional, **arguments)  # SQLAlchemy 2.0 shares `named` between all addresses
        named.update(arguments)
        return None

    def _connect(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        driver = self._driver
        if driver.opens_connections and entry.info.get(_OPENED_BY) is not self:
            raise ConfigurationError(
                "An engine given to replicate() opens its connections with a function of its own (creator=…, pool=…, "
                'or another listener for "do_connect"). Give create_engine() the address and connect_args instead, so '
                "that replswitch can open the connections."
            )
        if not driver.opens_connections:
            driver.adopt(raw, read_only=self._server.state == SLAVE, begin="")
        link = entry.info[LINK] = Link(self._server_of(entry), raw, driver)
        if not driver.opens_connections:
            note_for_children(link)
        if driver.opens_connections or link.writes.reports_all:
            link.writes.pop_write_status()  # the statements with which SQLAlchemy sets a connection up are no writes

    def _checkout(self, raw: Raw, entry: ConnectionPoolEntry, proxy: Any) -> None:
        if proxy._pool._dialect is not self._dialect:
            raise ConfigurationError(f"The engine of {self._server.name} {OTHER_POOL}")
        link: Link | None = entry.info.get(LINK)
        if link is None:  # a database in memory, opened before replicate() was called
            entry.info[LINK] = Link(self._server, raw, self._driver)
        elif link.process != getpid() and not self._driver.opens_connections:
            raise DisconnectionError("The connection belongs to the parent process.")  # handled like a closed one
        elif link.opened_at < link.server.lost_at or not self._driver.alive(raw):
            raise DisconnectionError("The server has closed the connection.")  # the pool then opens a new connection

    def _begin(self, raw: PoolProxiedConnection) -> None:
        self._driver.begin_adopted(raw.dbapi_connection)

    # Report to the session that uses a connection.

    def _execute(
        self, execute: Callable[..., None], cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        execute(cursor, statement, parameters, context)
        try:
            route = context.root_connection.connection.info[ROUTE]()
        except (AttributeError, NotImplementedError, KeyError):  # no session uses the connection
            return
        if route is not None and not (route.is_alone and route.ran_alone(cursor, context)):
            route.ran(cursor, context)

    def _execute_no_params(
        self, execute: Callable[..., None], cursor: Any, statement: str, context: Any = None
    ) -> None:
        self._execute(lambda *about: execute(*about[:2], about[3]), cursor, statement, None, context)

    def _handle_error(self, context: ExceptionContext) -> None:
        route = route_of(context.connection)
        if route is not None:
            route.failed(context)


class MasterOpener(Opener):
    """Opens the master's connections. It also handles failures outside sessions, and records the writes.

    Attributes:
        database: the database.
    """

    events = (*Opener.events, "checkin")
    database: Database

    def listen(self, engine: Engine) -> None:
        """Listen to the engine's events. If the driver does not report writes, look for them after each commit."""
        super().listen(engine)
        dialect: Any = engine.dialect
        if self._driver.commit_waits_for_readers:
            dialect.do_commit = partial(self._commit_after_readers, dialect.do_commit)
        if not self._driver.opens_connections:
            dialect.do_commit = partial(self._commit_and_look, dialect.do_commit)
            before_close(engine, self._look_after_cancellation)

    def _checkout(self, raw: Raw, entry: ConnectionPoolEntry, proxy: Any) -> None:
        super()._checkout(raw, entry, proxy)
        frame = stack()
        if entry.info.pop(_OPENED_BY, None) is not None or frame is None:
            return  # a connection opened just now goes to the server that now has the master's name
        scope = frame.scope
        if scope.must_see and self.database.leads_to_former_master(scope, entry.info[LINK], self._port):
            raise InvalidatePoolError("This is a connection to a former master.")  # so are the others in the pool

    def _connect(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        super()._connect(raw, entry)
        self.database.master_loss.opened(entry.info[LINK])
        if self._driver.opens_connections:
            raw.on_write = self._look  # the driver reports every commit, even those without an event of SQLAlchemy

    def _look(self, tracker: WriteTracker, busy: bool = False) -> None:
        # An asyncio driver can send a query only while SQLAlchemy's code runs, so it must look at once.
        self.database.writes.look(tracker, tracker, at_once=not self._driver.opens_connections, busy=busy)

    def _look_after_cancellation(self) -> None:
        # A task of an asyncio driver was cancelled before the answer, so the server may have committed.
        if not self._driver.opens_connections:
            self.database.writes.look(UNKNOWN, UNKNOWN)

    def _commit_after_readers(self, commit: Callable[[Any], None], raw: PoolProxiedConnection) -> None:
        reference = raw.info.get(ROUTE)
        if reference is not None and (route := reference()) is not None:
            route.before_commit(raw.dbapi_connection)
        commit(raw)

    def _commit_and_look(self, commit: Callable[[Any], None], raw: PoolProxiedConnection) -> None:
        try:
            commit(raw)
        except Exception:
            raise
        except BaseException:
            self._look_after_cancellation()
            raise
        tracker = self._driver.writes_of(raw)
        self.database.writes.look(tracker, tracker, at_once=True)

    def _execute(
        self, execute: Callable[..., None], cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        try:
            connection = context.root_connection
            info = connection.connection.info
            link: Link = info[LINK]
        except (AttributeError, NotImplementedError, KeyError):  # SQLAlchemy sets the dialect up
            execute(cursor, statement, parameters, context)
            return
        streamed = context.execution_options.get("stream_results")
        if streamed or not is_recording():
            # While a result is unread, no query can be sent, so look for writes before the statement. In
            # `unrecorded()`, do the same, because the next answer must not include writes that no scope records.
            self._look_last(link.writes)
        # In autocommit mode each statement is committed by itself, and a part of it even if it fails. While a result is
        # unread, no query can be sent; `_checkin` looks when the connection goes back to the pool.
        commits_at_once = level_of(connection) == AUTOCOMMIT
        if commits_at_once:
            info[COMMITS_AT_ONCE] = True
        execute(cursor, statement, parameters, context)
        reference = info.get(ROUTE)
        route = None if reference is None else reference()
        if route is not None and not (route.is_alone and route.ran_alone(cursor, context)):
            route.ran(cursor, context)
        if commits_at_once and not streamed:
            self._look(link.writes)

    def _look_last(self, tracker: WriteTracker, *, commits_at_once: bool = False) -> None:
        if not tracker.may_have_news():
            return
        shows_commits = self._driver.opens_connections or tracker.reports_all or commits_at_once
        if shows_commits or level_of(self._server.source) == AUTOCOMMIT:
            self.database.writes.look(tracker, tracker, at_once=True)

    def _checkin(self, raw: Any, entry: ConnectionPoolEntry) -> None:
        info = entry.info
        if not info.pop(OUR_OWN, False) and raw is not None and (link := info.get(LINK)) is not None:
            # Some writes, such as DDL, survive a rollback. In autocommit mode, there may be writes by the driver's
            # cursors, of which SQLAlchemy does not know.
            self._look_last(link.writes, commits_at_once=info.pop(COMMITS_AT_ONCE, False))

    def _handle_error(self, context: ExceptionContext) -> None:
        connection, error, info = context.connection, context.original_exception, info_of(context.connection)
        if not isinstance(error, Exception) and connection is not None and info is not None:
            link: Link | None = info.get(LINK)
            if level_of(connection) == AUTOCOMMIT or (link is not None and link.writes.may_commit()):
                self._look_after_cancellation()
        if context.is_pre_ping or not isinstance(error, self._driver.module.Error):
            return
        if connection is None or (info is None and usable(connection)):
            self.database.raise_if_master_is_gone(self._driver, error)
        elif route_of(connection) is not None:
            super()._handle_error(context)
        elif info is not None:
            port = PoolPort(self._driver)
            try:
                Route(self.database, port).failed(Attempt(repeatable=False), info[LINK], error)
            finally:
                context.is_disconnect = context.is_disconnect or port.dropped is not None


def route_of(connection: Connection | None) -> SessionRoute | None:
    """Return the route of the session that uses a connection; None if no session uses it."""
    reference = (info_of(connection) or {}).get(ROUTE)
    route: SessionRoute | None = None if reference is None else reference()
    return None if route is None or route.link_on(connection) is None else route
