"""The route of one session to the servers of one replicated database, and the port that the route uses."""

from __future__ import annotations

import weakref
from os import getpid
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from replswitch.decision import MASTER
from replswitch.engine.attempt import Attempt
from replswitch.engine.block import Block
from replswitch.sqlalchemy.alone import NEVER, Alone, Forks, enter
from replswitch.sqlalchemy.facts import AUTOCOMMIT, level_of, remove_from, usable
from replswitch.sqlalchemy.pooled import LINK, ROUTE, LateLink, lost_transaction
from replswitch.state import stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

    from replswitch.drivers import Raw
    from replswitch.engine.servers import Link, Server
    from replswitch.errors import NoServerError
    from replswitch.sqlalchemy.pooled import Lease
    from replswitch.state import Frame


class SessionRoute(Alone):
    """The links and the transaction of one session in one database. It is the port of the session's route.

    Attributes:
        retryable: the latest error after which the failed call runs again.
    """

    _only_asks = False  # the application wants an engine, but may run nothing
    _has_streamed = _in_autocommit = False  # the latter: the latest failed statement ran in autocommit mode
    _abandoned: tuple[Connection, ...] = ()  # connections that left the transaction
    retryable: BaseException | None = None

    # Which engine serves the next statement

    def choose(self, frame: Frame | None, *, flushing: bool) -> Engine:
        """Return the engine of the next statement.

        Args:
            frame: the top of the stack.
            flushing: whether the session is writing its pending changes (S8).

        Raises:
            DBAPIError: a server has answered a query of replswitch with an error.
            NoServerError: no server may serve the statement.
            SlaveWriteError: it is a flush in slave state, and may not move to the master.
        """
        calls = self._calls
        self._only_asks = not (calls.running or self._session._flushing)
        if self._only_asks and self._engine.dialect.is_async and self._database.asks_slaves(frame):
            return self._engine  # outside a call, an asyncio driver cannot wait for the answer of a slave
        self.has_begun = True
        if self.is_alone and self._serves_alone(frame, may_read=not (flushing or self._only_asks)):
            lease, self.bind = self.pending, self._engine
            if self._leases:
                self._keep_only(None if lease is None else lease.link)
            if lease is not None:
                self.bind = self.offer(lease)
            return self.bind
        route = self._make_route() if self.is_alone else self.route
        if route.block is None:
            route.begin(Block())
        link: Link | None = None
        try:
            link = route.for_statement(calls.attempts.get((calls.running, self)), flushing=flushing)
        except self.driver.module.Error as error:
            kind, dialect = self.driver.module.Error, self._engine.dialect
            raise DBAPIError.instance(None, None, error, kind, dialect=dialect) from error
        finally:
            if self._leases or self._abandoned:
                self._keep_only(link)
        self.frame, self.scope, self.version, self.process = frame, route._scope, route._version, getpid()
        self.forks = Forks.number
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
        """Return the chosen engine. Its next `connect` returns the connection that is reserved for the session."""
        if lease.loan is not None:
            lease.engine.offered.lease = lease.reference
        elif self._calls.running:  # now the session connects
            self.forget()
            return self.choose(stack(), flushing=False)
        return lease.engine

    def _keep_only(self, link: Link | None) -> None:
        if len(self._leases) > (link is not None and link.server in self._leases):
            for server, lease in list(self._leases.items()):
                if lease.link is not link:
                    del self._leases[server]
                    lease.give_back()
        if self._abandoned:
            self._leave_abandoned()

    # replswitch.engine.port.Port

    def open(self, server: Server) -> Link:
        """Return a connection to a slave, reserved for the session; or the master's link, which connects later."""
        if server.state == MASTER:
            self._master = self._master or LateLink(server)
            return self._master
        lease = self._leases.pop(server, None)
        if lease is not None and (lease.loan is None or not self.driver.alive(lease.link.raw)):
            lease.discard()
            lease = None
        if lease is None:
            # If choosing the server needs no connection, use a link without one.
            is_needed = not self._only_asks or self._database.asks_slaves(stack())
            link = None if is_needed else LateLink(server)
            try:
                is_masters = self._engine is self._database.servers.master.source
                lease = server.source.lend(None if is_masters else self._engine, link)
            except DBAPIError as error:  # on the first connection, SQLAlchemy has asked for the server's version
                raise error.orig or error from error
        self._leases[server] = lease
        return lease.link

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close the connection that is reserved for the session, and make the pool replace its idle connections."""
        super().drop(server, link)
        lease = self._leases.get(server)
        if lease is not None and link in (None, lease.link):
            del self._leases[server]
            lease.discard()

    def leave(self, link: Link, *, is_dead: bool = False) -> None:
        """Remove a connection from the session's transaction, once no statement runs on it."""
        connection = self._joined.pop(link, None)
        if connection is not None:
            self._abandoned = (*self._abandoned, connection)
            if is_dead and usable(connection):
                connection.invalidate()  # now, because the next connection may need its place in the pool
        if link is self._master:
            self._master = None

    def release(self, link: Link) -> None:
        """Roll back, and leave the connection to the application. In a savepoint, remove it from the session."""
        if self._has_streamed:
            return  # the application may still be reading the rows
        if self._session.in_nested_transaction():
            self.leave(link)
            self._leave_abandoned()
        elif usable(self._joined[link]):
            self.driver.rollback(link.raw)

    def part_with(self, link: Link) -> None:
        """Remove a dead connection from the session's transaction."""
        self.leave(link, is_dead=True)

    def lose_block(self, error: Exception) -> None:
        """Make each statement raise PendingRollbackError until a rollback, unless the session is in autocommit mode."""
        if self.route.block is not None:
            self.route.block.lost = None if self._in_autocommit else lost_transaction(error)

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether the transaction has read from a slave, except for reads that ``attempt`` would repeat."""
        began_at = 0 if attempt is None else attempt.began_at
        return self._transaction_read > 0 and (not began_at or self._transaction_read < began_at)

    def _leave_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, ()
        for connection in abandoned:
            remove_from(self._session, connection)
            connection.close()

    # The session's transaction

    def begin_on(self, connection: Connection) -> None:
        """Make a connection join the route's transaction, after the session has begun a transaction on it (S5)."""
        if self.is_alone and self._joins_alone(connection):
            return
        route = self._make_route() if self.is_alone else self.route
        info = connection.connection.info
        physical: Any = info.get(LINK)
        self.has_begun = True
        if connection.engine is not self._engine:
            lease = None if physical is None else self._leases.get(physical.server)
            if lease is None or lease.link is not physical or lease.loan is not None:
                return  # it is not reserved for this session, or a savepoint begins on it
            link, self.pending = self._leases.pop(physical.server).link, None
            link.writes.session_changed = False  # SQLAlchemy prepared it, as it prepares connections to the master
        elif (link := self._master or self.open(self._database.servers.master)) in self._joined:
            return
        else:
            link.take_connection_of(physical)
            enter(info, connection, link)
            if route.held is not None:
                scope, why = route.held
                scope.force_master(self._database.key, why)
        if (block := route.block) is None:
            route.begin(block := Block())
        block.links.append(link)
        self._joined[link] = connection
        info[ROUTE] = weakref.ref(self)
        if link is self._master:
            if len(block.links) > 1:
                block.release_reads(self._database.servers.master_read_only, self)
            if self.bind is not self._engine:
                self.forget()

    def ran(self, cursor: Any, context: Any) -> None:
        """Record that a statement has run, and whether it has read rows from a slave. Call it only with a route.

        Args:
            cursor: the driver's cursor.
            context: SQLAlchemy's context of the statement, which has its connection and its options.
        """
        route, link = self.route, self.link_on(context.root_connection)
        if link is None or (block := route.block) is None:
            return
        block.has_run, tally = True, route.tally
        (tally if tally.labels[2] == link.server.name else route.tally_on(link)).add()
        if link is self._master:
            return
        link.writes.follow()
        if context.execution_options.get("stream_results"):
            self._has_streamed = True
        elif link.writes.unread:
            route.drain(link)
        if not (self._transaction_read and route.has_read) and self.driver.returned_rows(cursor):
            block.has_read = True
            self._transaction_read = self._transaction_read or self._calls.number
            if not route.has_read:
                route.has_read, self._scope_read = True, self._calls.number

    def before_commit(self, raw: Raw) -> None:
        """If ``raw`` is the master's connection, end the slaves' snapshots, for which its commit would wait (S10)."""
        if self._master is not None and self._master.raw is raw:
            for link, connection in self._joined.items():
                if link is not self._master and usable(connection):
                    self.driver.rollback(link.raw)

    def refuse_if_lost(self) -> None:
        """Raise an error if the transaction is lost."""
        if self.is_alone:
            if self._connection is None or self.process == getpid():
                return
            self._make_route()
        if self.route.block is not None:
            self.route.refuse_if_lost(self.route.block)

    def end(self) -> None:
        """Release all links and forget the chosen engine, because the session's transaction has ended."""
        if self._leases:
            self._keep_only(None)
        self.has_begun = self._has_streamed = False
        self._transaction_read = 0
        if self.is_alone:
            self.frame, self._connection, self._slave, self._on_master, self.pending = NEVER, None, None, None, None
            return
        self._abandoned = ()  # the session has closed them
        self._joined.clear()
        if self._master is not None and self._master.raw is not None:
            self._master = None
        self.frame = NEVER
        block = self.route.end()
        if block is not None:
            block.lost = None  # the error refers to frames that refer to the session; this breaks the cycle
        self.route.held = self.pending = self.retryable = None

    def forget(self) -> None:
        """Forget the chosen engine, so that the next statement chooses again."""
        self.frame = NEVER
        if not self.is_alone:
            self.route.forget()

    def link_on(self, connection: Connection | None) -> Link | None:
        """Return the link of a connection that has joined; None for other connections."""
        if self.is_alone:
            self._make_route()
            self.forget()
        for link, joined in self._joined.items():
            if joined is connection:
                return link
        return None

    # Faults

    def failed(self, context: ExceptionContext) -> None:
        """Decide whether a statement that has failed on a connection of the session runs again.

        Raises:
            SlaveWriteError: it is a write that may not move to the master.
            NoServerError: the master is lost, or read-only.
        """
        connection, error, route = context.connection, context.original_exception, self.route
        link, block = self.link_on(connection), route.block
        if link is None or block is None or connection is None or not isinstance(error, self.driver.module.Error):
            return
        self._in_autocommit = level_of(connection) == AUTOCOMMIT
        repeatable = self._calls.may_repeat(self._session, connection)
        attempt = Attempt(repeatable=False)
        if repeatable:
            single = not getattr(context.execution_context, "executemany", False)
            attempt = self._calls.attempt(self, single=single)
        had_read, block.has_read = route.has_read, self.has_read(attempt)  # a retried call repeats its own reads
        route.has_read = had_read and (not attempt.began_at or self._scope_read < attempt.began_at)
        self.dropped, self.frame, following = None, NEVER, None
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
        """Return whether the call that raised this error runs again. If so, prepare for the second run."""
        if self.retryable is None or self.retryable is not error:
            return False
        self.retryable = None
        self._leave_abandoned()
        return True

    def runs_without_master(self, error: NoServerError) -> bool:
        """Return whether a call runs again without the master, after the session could not connect to it (F3)."""
        if self.is_alone and self.has_begun and self.bind is self._engine:
            self._make_route()
            self.choose(stack(), flushing=False)
        master = self._master
        is_connecting = master is not None and self.route.link is master and master not in self._joined
        if not is_connecting or error.server != self._database.servers.master.name:
            return False
        self.forget()
        return self.route.spare(self.scope, error.__cause__ or error, is_there=False) is not None
