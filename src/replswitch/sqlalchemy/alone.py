"""What a session needs in a database while one server serves its transaction alone. Most sessions need no more."""

from __future__ import annotations

import os
import weakref
from os import getpid
from typing import TYPE_CHECKING, Any, Final

from replswitch.decision import MASTER
from replswitch.engine.block import Block
from replswitch.engine.first import first_choice
from replswitch.engine.recording import is_recording
from replswitch.engine.selection import NO_SCOPE
from replswitch.sqlalchemy.facts import AUTOCOMMIT, level_of
from replswitch.sqlalchemy.pooled import COMMITS_AT_ONCE, LINK, ROUTE, LateLink, LateRoute, PoolPort
from replswitch.telemetry.counters import STATEMENTS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

    from replswitch.decision import State
    from replswitch.drivers import Driver
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Link, Server
    from replswitch.sqlalchemy.pooled import Calls, Lease
    from replswitch.state import Frame
    from replswitch.telemetry.counters import Tally

#: Not equal to any frame, so that the engine is chosen again.
NEVER: Final[Any] = object()


class Forks:
    """The number of forks between the first process and this one. Each statement reads it: `getpid` takes too long."""

    number = 0


def _count_fork() -> None:
    Forks.number += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Alone(PoolPort):
    """The base class of `SessionRoute`: a session in one database, as long as one server serves its transaction alone.

    `replswitch.engine.first` chooses this server. A `route` is made only if something else happens: a statement whose
    server is not that simple to choose, a statement in the same transaction after an instruction or a write, or one
    that fails. To make a route takes longer than all else that replswitch does for a transaction with one query.

    Args:
        session: the session.
        calls: the session's calls.
        database: the database.
        driver: the driver of all servers.
        engine: the engine that the session is bound to, which is the master's or one made from it with other options.

    Attributes:
        has_begun: an engine was chosen, or a connection has joined, since the end of the latest transaction.
        bind: the chosen engine. While `frame`, `version` and the transaction are unchanged, it is used again.
        frame: the top of the stack when the latest engine was chosen.
        scope: the scope of `frame`; outside any scope, `NO_SCOPE`. Its version at that time is ``version``.
        process: the id of the process in which the latest engine was chosen. `Forks.number` at that time is ``forks``.
        pending: the connection to a slave that the session is about to get; None once it has the connection.
        is_alone: there is no route.
        route: finds the link for each statement, once `_make_route` has made it.
    """

    has_begun = False
    frame: Frame | None = NEVER
    scope, version, process, forks = NO_SCOPE, 0, 0, 0
    pending: Lease | None = None
    route: LateRoute

    is_alone = True

    # While there is no route: the connection, if it has joined, its link, and whether a statement has run.
    _connection: Connection | None = None
    _on_master: Link | None = None
    _slave: Link | None = None
    _has_run = False
    _side: State = MASTER
    _why = ""
    _tally: Tally

    _transaction_read = _scope_read = 0  # the number of the first call that read from a slave; 0: none
    _master: Link | None = None  # has a connection only while the transaction includes the master

    def __init__(self, session: Session, calls: Calls, database: Database, driver: Driver, engine: Engine) -> None:
        self.driver, self.one_link = driver, driver.in_memory
        self._session, self._calls, self._database = weakref.proxy(session), calls, database  # no reference cycle
        self._engine: Engine = engine
        self.bind: Engine = engine
        self._leases: dict[Server, Lease] = {}
        self._joined: dict[Link, Connection] = {}

    def _make_route(self) -> LateRoute:
        """Make the route. It continues the transaction, if a connection has joined."""
        self.is_alone = False
        route = self.route = LateRoute(self._database, self)
        route.resume(self.scope, has_read=self._scope_read > 0)
        if (connection := self._connection) is None:
            self.frame = NEVER
        else:
            if (link := self._slave) is None:
                link = self._master = LateLink(self._database.servers.master)
                assert self._on_master is not None  # noqa: S101 - `_joins_alone` has set one of them; for mypy
                link.take_connection_of(self._on_master)  # the connection may be invalid by now
                link.process = self.process
            self._connection = self._slave = self._on_master = None
            self._joined[link] = connection
            block = Block()
            block.links.append(link)
            block.has_run, block.has_read = self._has_run, self._transaction_read > 0
            route.resume_transaction(block, self.frame, self._side, self._why, self._tally)
        return route

    def _serves_alone(self, frame: Frame | None, *, may_read: bool) -> bool:
        """Choose the server of the transaction's first statement, if that is simple. Call it only without a route."""
        if self._connection is not None:
            return False
        scope = NO_SCOPE if frame is None else frame.scope
        if scope is not self.scope:
            self._scope_read = 0
        version, database = scope.version, self._database
        found = first_choice(database, frame, scope, self, may_read=may_read)
        if found is None:
            return False
        side, why, link = found
        server = database.servers.master if link is None else link.server
        if scope is not NO_SCOPE:
            database.note(scope, side, server, why)
        self._tally = STATEMENTS.tally(database.name, side, server.name, why)
        self.frame, self.scope, self.version, self.process = frame, scope, version, getpid()
        self._side, self._why, self.forks = side, why, Forks.number
        self.pending = None if link is None else self._leases[server]
        return True

    def _joins_alone(self, connection: Connection) -> bool:
        """If there is no route, record that the session has begun a transaction on the connection of its server."""
        if self._connection is not None:
            return self._connection is connection  # a savepoint begins on it
        info, lease = connection.connection.info, self.pending
        physical: Link | None = info.get(LINK)
        if physical is None or self.frame is NEVER:
            return physical is None  # a connection without a link is none of this database
        if lease is None:
            if connection.engine is not self._engine:
                return False
            enter(info, connection, physical)
            self._on_master = physical
        elif lease.link is physical and lease.loan is None:
            self._slave, self.pending = self._leases.pop(physical.server).link, None
            physical.writes.session_changed = False  # SQLAlchemy prepared it, as it prepares connections to the master
        else:
            return False
        self._connection, self._has_run = connection, False
        info[ROUTE] = weakref.ref(self)
        return True

    def ran_alone(self, cursor: Any, context: Any) -> bool:
        """Record that a statement has run, while there is no route. If its rows are unread, make one, and return False.

        The arguments are those of `SessionRoute.ran`.
        """
        if context.root_connection is not self._connection:
            return True
        if (link := self._slave) is not None:
            link.writes.follow()
            if link.writes.unread or context.execution_options.get("stream_results"):
                self._make_route()
                return False
            if not self._transaction_read and self.driver.returned_rows(cursor):
                self._transaction_read = self._calls.number
                self._scope_read = self._scope_read or self._transaction_read
        self._has_run = True
        self._tally.add()
        return True


def enter(info: dict[str, Any], connection: Connection, link: Link) -> None:
    """Prepare a connection to the master for the statements of a session."""
    if level_of(connection) == AUTOCOMMIT:
        info[COMMITS_AT_ONCE] = True
    if is_recording():
        link.writes.refresh_baseline()
