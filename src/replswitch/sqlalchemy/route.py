"""The route of one session to the servers of one replicated database, and the port that the route uses."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from replswitch.decision import MASTER
from replswitch.drivers import Driver
from replswitch.engine.attempt import Attempt, Block
from replswitch.engine.recording import is_recording
from replswitch.engine.selection import NO_SCOPE
from replswitch.engine.servers import Link
from replswitch.sqlalchemy.pooled import LINK, ROUTE, LateRoute, PoolPort, is_autocommit, remove_from, streams, usable
from replswitch.state import stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.orm import Session

    from replswitch.engine.database import Database
    from replswitch.engine.servers import Server
    from replswitch.errors import NoServerError
    from replswitch.scope import Scope
    from replswitch.sqlalchemy.pooled import Calls, Lease
    from replswitch.state import Frame

#: Different from every frame, so that the engine is chosen again.
_NEVER: Final[Any] = object()

#: The driver of a link without a connection.
_NOT_CONNECTED: Final = Driver()


class SessionRoute(PoolPort):
    """The links and the transaction of one session in one database. It is the port of the session's route.

    Args:
        session: the session.
        calls: its calls.
        database: the database.
        driver: the driver of all servers.
        engine: the engine that the session is bound to: the master's, or one made from it with other options.

    Attributes:
        route: finds the link for each statement.
        frame: the top of the stack when the latest engine was chosen.
        scope: the scope of `frame`; outside any scope, one that never changes.
        version: the version of `scope` at that time.
        bind: the chosen engine. While `frame`, `version` and the transaction are unchanged, it is used again.
        pending: the connection to a slave that the session is about to get; None once it has the connection.
        retryable: the latest error after which the failed call runs again.
    """

    def __init__(self, session: Session, calls: Calls, database: Database, driver: Driver, engine: Engine) -> None:
        super().__init__(driver)
        self._session = session
        self._calls = calls
        self._database = database
        self._engine = engine
        self._let_master_go()
        self._leases: dict[Server, Lease] = {}
        self._joined: dict[Link, Connection] = {}
        self._abandoned: list[Connection] = []  # connections that left the transaction
        self._only_asks = False  # the application only asks for the engine, and may run no statement
        self._in_autocommit = False  # whether the latest failed statement ran in autocommit mode
        self._transaction_read = self._scope_read = 0  # the number of the first call that read from a slave; 0: none
        self.route = LateRoute(database, self)
        self.frame: Frame | None = _NEVER
        self.scope: Scope = NO_SCOPE
        self.version = 0
        self.bind = engine
        self.pending: Lease | None = None
        self.retryable: BaseException | None = None

    # Which engine serves the next statement

    def choose(self, frame: Frame | None, *, flushing: bool) -> Engine:
        """Return the engine of the next statement.

        Args:
            frame: the top of the stack.
            flushing: whether the session is writing its pending changes (S8).

        Raises:
            DBAPIError: a server has answered a question of replswitch with an error.
            NoServerError: no server may serve the statement.
            SlaveWriteError: it is a flush in slave state, and may not move to the master.
        """
        route = self.route
        self._only_asks = not self._calls.running and not self._session._flushing
        if self._only_asks and self._engine.dialect.is_async and self._database.asks_slaves(frame):
            return self._engine  # here, an asyncio driver cannot wait for the answer of a slave
        if route.block is None:
            route.begin(Block())
        scope = NO_SCOPE if frame is None else frame.scope
        version = scope.version  # read before choosing: a change from here on makes the next statement choose again
        link: Link | None = None
        try:
            link = route.for_statement(self._calls.attempts.get(self), flushing=flushing)
        except self.driver.module.Error as error:
            kind, dialect = self.driver.module.Error, self._engine.dialect
            raise DBAPIError.instance(None, None, error, kind, dialect=dialect) from error
        finally:
            self._keep_only(link)
        self.frame, self.scope, self.version = frame, scope, version
        self.bind, self.pending = self._engine, None
        if link in self._joined:
            self.bind = self._joined[link].engine
        elif link is not self._master:
            lease = self.pending = self._leases[link.server]
            if self._only_asks:
                del self._leases[link.server]
                lease.give_back()
            self.bind = self.offer(lease)
        return self.bind

    def offer(self, lease: Lease) -> Engine:
        """Return the chosen engine, and make it give the session the connection that is reserved for it."""
        if lease.loan is not None:
            lease.engine.offered.lease = lease.reference
        elif self._calls.running:  # now the session connects
            self.forget()
            return self.choose(stack(), flushing=False)
        return lease.engine

    def _keep_only(self, link: Link | None) -> None:
        for server, lease in list(self._leases.items()):
            if lease.link is not link:
                del self._leases[server]
                lease.give_back()
        self._leave_abandoned()

    # replswitch.engine.port.Port

    def open(self, server: Server) -> Link:
        """Return a connection to a slave, reserved for the session; or the master's link, which connects later."""
        if server.state == MASTER:
            return self._master
        lease = self._leases.pop(server, None)
        if lease is not None and (lease.loan is None or not self.driver.alive(lease.link.raw)):
            lease.discard()
            lease = None
        if lease is None:
            # If choosing the server needs no connection, use a link without one.
            is_needed = not self._only_asks or self._database.asks_slaves(stack())
            link = None if is_needed else Link(server, None, _NOT_CONNECTED)
            try:
                lease = server.source.lend(self._engine, link)
            except DBAPIError as error:  # on the first connection, SQLAlchemy has asked for the server's version
                raise error.orig or error from error
        self._leases[server] = lease
        return lease.link

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close the connection that is reserved for the session, and make the pool replace the idle ones."""
        super().drop(server, link)
        lease = self._leases.get(server)
        if lease is not None and link in (None, lease.link):
            del self._leases[server]
            lease.discard()

    def leave(self, link: Link, *, is_dead: bool = False) -> None:
        """Remove a connection from the session's transaction, once no statement runs on it."""
        connection = self._joined.pop(link, None)
        if connection is not None:
            self._abandoned.append(connection)
            if is_dead and usable(connection):
                connection.invalidate()  # at once: the session may need its place in the pool for the next connection
        if link is self._master:
            self._let_master_go()

    def part_with(self, link: Link) -> None:
        """Remove a dead connection from the session's transaction."""
        self.leave(link, is_dead=True)

    def lose_block(self, error: Exception) -> None:
        """Make every statement raise SQLAlchemy's error until the session is rolled back."""
        lost = PendingRollbackError(
            f"The session's transaction was lost because of an error of the server ({error}). Call rollback() on the "
            "session, and begin again.",
            code="8s2b",
        )
        if self.route.block is not None:
            self.route.block.lost = None if self._in_autocommit else lost

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether the transaction had read from a slave before the running call began."""
        began_at = 0 if attempt is None else attempt.began_at
        return self._transaction_read > 0 and (not began_at or self._transaction_read < began_at)

    def _let_master_go(self) -> None:
        # The session's link to the master. It has a connection only while the session's transaction has one.
        self._master = Link(self._database.servers.master, None, _NOT_CONNECTED)

    def _leave_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, []
        for connection in abandoned:
            remove_from(self._session, connection)
            connection.close()

    # The session's transaction

    def begin_on(self, connection: Connection) -> None:
        """Make a connection join, because the session's transaction has begun on it (S5)."""
        link = self._master
        physical: Any = connection.info.get(LINK)
        if connection.engine is not self._engine:
            lease = next((each for each in self._leases.values() if each.link is physical), None)
            if lease is None or lease.loan is not None:
                return  # it is not reserved for this session, or a savepoint begins on it
            link, self.pending = lease.link, None
            del self._leases[link.server]
            link.writes.session_changed = False  # SQLAlchemy prepared it, as it prepares connections to the master
        elif link in self._joined:
            return
        else:
            link.raw, link.writes, link.readable = physical.raw, physical.writes, physical.readable
            if is_recording():
                link.writes.refresh_baseline()
            if self.route.held is not None:
                scope, why = self.route.held
                scope.force_master(self._database.key, why)
        block = self.route.block or Block()
        if self.route.block is None:
            self.route.begin(block)
        block.links.append(link)
        self._joined[link] = connection
        connection.info[ROUTE] = weakref.ref(self)
        if link is self._master:
            self.forget()

    def ran(self, connection: Connection, cursor: Any, context: Any) -> None:
        """Record that a statement has run, and whether it has read from a slave.

        Args:
            connection: the connection that it ran on.
            cursor: the driver's cursor with the result.
            context: SQLAlchemy's context with the options of the statement.
        """
        link, block = self.link_on(connection), self.route.block
        if link is None or block is None:
            return
        block.has_run = True
        if link is self._master:
            return
        link.writes.follow()
        if link.writes.unread and not streams(context):
            self.route.drain(link)
        if cursor.description is not None:
            block.has_read = True
            self._transaction_read = self._transaction_read or self._calls.number
            if not self.route.has_read:
                self.route.has_read, self._scope_read = True, self._calls.number

    def before_commit(self) -> None:
        """End the slaves' snapshots if the master's commit would wait for them: both may be one file (S10)."""
        if self.driver.commit_waits_for_readers:
            for link, connection in self._joined.items():
                if link is not self._master and usable(connection):
                    self.driver.rollback(link.raw)

    def refuse_if_lost(self) -> None:
        """Raise an error if the transaction is lost."""
        if self.route.block is not None:
            self.route.refuse_if_lost(self.route.block)

    def end(self) -> None:
        """Release everything: the session's transaction has ended."""
        self._abandoned.clear()  # the session has closed them
        self._keep_only(None)
        self._joined.clear()
        self._let_master_go()
        self.forget()
        block = self.route.end()
        if block is not None:
            block.lost = None  # the error refers to frames that refer to the session: this breaks the circle
        self.route.held = self.pending = self.retryable = None
        self._transaction_read = 0

    def forget(self) -> None:
        """Choose again for the next statement."""
        self.frame = _NEVER
        self.route.forget()

    def link_on(self, connection: Connection | None) -> Link | None:
        """Return the link of a connection that has joined; None for other connections."""
        for link, joined in self._joined.items():
            if joined is connection:
                return link
        return None

    # Faults

    def failed(self, context: ExceptionContext) -> None:
        """Handle a statement that has failed on a connection of the session: decide whether it runs again.

        Raises:
            SlaveWriteError: it is a write that may not move to the master.
            NoServerError: the master is lost, or read-only.
        """
        connection, error, route = context.connection, context.original_exception, self.route
        link, block = self.link_on(connection), route.block
        if link is None or block is None or connection is None or not isinstance(error, self.driver.module.Error):
            return
        self._in_autocommit = is_autocommit(connection)
        repeatable = self._calls.may_repeat(self._session, connection)
        attempt = Attempt(repeatable=False)
        if repeatable:
            single = not getattr(context.execution_context, "executemany", False)
            attempt = self._calls.attempts.setdefault(self, Attempt(single=single, began_at=self._calls.running))
        had_read, block.has_read = route.has_read, self.has_read(attempt)  # a retried call repeats its own reads
        route.has_read = had_read and (not attempt.began_at or self._scope_read < attempt.began_at)
        self.dropped, self.frame, following = None, _NEVER, None
        try:
            following = route.failed(attempt, link, error)
        finally:
            if following is None:
                block.has_read, route.has_read = self._transaction_read > 0, had_read
                context.is_disconnect = context.is_disconnect or self.dropped is link
            else:
                self._transaction_read = self._transaction_read if block.has_read else 0
                context.is_disconnect = False  # otherwise the session would need a rollback before the retry
                self.retryable = error

    def runs_again(self, error: BaseException | None) -> bool:
        """Return whether the call that this error has ended runs again. If so, prepare for it."""
        if self.retryable is None or self.retryable is not error:
            return False
        self.retryable = None
        self._leave_abandoned()
        return True

    def runs_without_master(self, error: NoServerError) -> bool:
        """Return whether a call runs again without the master, to which the session could not connect (F3)."""
        is_connecting = self.route.link is self._master and self._master not in self._joined
        if not is_connecting or error.server != self._database.servers.master.name:
            return False
        self.forget()
        return self.route.spare(self.scope, error.__cause__ or error, is_there=False) is not None


def route_of(connection: Connection | None) -> SessionRoute | None:
    """Return the route of the session that uses a connection; None if there is none."""
    reference = connection.info.get(ROUTE) if connection is not None and usable(connection) else None
    route: SessionRoute | None = None if reference is None else reference()
    return None if route is None or route.link_on(connection) is None else route
