"""What a session needs in a database while only the master serves it. Most sessions in master state need no more."""

from __future__ import annotations

import weakref
from os import getpid
from typing import TYPE_CHECKING, Any, Final

from replswitch.decision import MASTER
from replswitch.engine.block import Block
from replswitch.engine.recording import is_recording
from replswitch.engine.selection import NO_SCOPE
from replswitch.sqlalchemy.facts import AUTOCOMMIT, level_of
from replswitch.sqlalchemy.pooled import COMMITS_AT_ONCE, LINK, ROUTE, LateLink, LateRoute, PoolPort
from replswitch.telemetry.counters import STATEMENTS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

    from replswitch.drivers import Driver
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Link, Server
    from replswitch.sqlalchemy.pooled import Calls, Lease
    from replswitch.state import Frame
    from replswitch.telemetry.counters import Tally

#: Not equal to any frame, so that the engine is chosen again.
NEVER: Final[Any] = object()


class MasterAlone(PoolPort):
    """The base class of `SessionRoute`: a session in one database that only the master serves.

    In master state, the first statement of a transaction goes to the master, whatever is known of the servers, and the
    master then serves the whole transaction. So `route` is made only if something else happens: a statement in slave
    state, or after an instruction or a write inside the transaction, or one that fails. To make it would take longer
    than all else that replswitch does for a transaction with one query.

    Args:
        session: the session.
        calls: the session's calls.
        database: the database.
        driver: the driver of all servers.
        engine: the engine that the session is bound to, which is the master's or one made from it with other options.

    Attributes:
        has_begun: an engine was chosen, or a connection has joined, since the end of the latest transaction.
        frame: the top of the stack when the latest engine was chosen.
        scope: the scope of `frame`; outside any scope, `NO_SCOPE`. Its version at that time is ``version``.
        process: the id of the process in which the latest engine was chosen.
        route: finds the link for each statement, once `_make_route` has made it.
    """

    has_begun = False
    frame: Frame | None = NEVER
    scope, version, process = NO_SCOPE, 0, 0

    _is_alone = True  # there is no route so far
    _connection: Connection | None = None  # the connection to the master, if it has joined, until there is a route
    _has_run = False  # a statement has run on it
    _why = ""
    _tally: Tally
    route: LateRoute
    _master: Link | None = None  # has a connection only while the transaction includes the master
    _leases: dict[Server, Lease]
    _joined: dict[Link, Connection]

    def __init__(self, session: Session, calls: Calls, database: Database, driver: Driver, engine: Engine) -> None:
        self.driver, self.one_link = driver, driver.in_memory
        self._session, self._calls, self._database = weakref.proxy(session), calls, database  # no reference cycle
        self._engine = self.bind = engine

    def _make_route(self) -> LateRoute:
        """Make the route. It continues the transaction, if one has begun on the master."""
        self._is_alone, self._leases, self._joined = False, {}, {}
        route = self.route = LateRoute(self._database, self)
        if (connection := self._connection) is not None:
            self._connection = None
            link = self._master = LateLink(self._database.servers.master)
            link.take_connection_of(connection.connection.info[LINK])
            link.process = self.process
            self._joined[link] = connection
            block = Block()
            block.links.append(link)
            block.has_run = self._has_run
            route.begin(block)
            route.resume(self.frame, self.scope, link, self._why, self._tally)
        return route

    def _serves_alone(self, frame: Frame | None) -> bool:
        """Choose the master, if it certainly serves the next statement, as the first one of a transaction.

        Call this method only if there is no route, and the latest instruction does not ask for a slave.
        """
        if self._connection is not None:
            return False
        scope = NO_SCOPE if frame is None else frame.scope
        version, database = scope.version, self._database
        why = database.reason_for_master_alone(frame, scope)
        if why is None or (scope.pending and not is_recording()):
            return False
        server = database.servers.master
        if scope is not NO_SCOPE:
            database.note(scope, MASTER, server, why)
        self._tally = STATEMENTS.tally(database.name, MASTER, server.name, why)
        self.frame, self.scope, self.version, self.process = frame, scope, version, getpid()
        self.has_begun, self._why = True, why
        return True

    def _joins_alone(self, connection: Connection) -> bool:
        """If there is no route, record that the session has begun a transaction on the master's connection."""
        if connection.engine is not self._engine or self.frame is NEVER:
            return False
        if self._connection is None:  # else a savepoint begins on it
            info = connection.connection.info
            enter(info, connection, info[LINK])
            self._connection, self._has_run = connection, False
            info[ROUTE] = weakref.ref(self)
        return True


def enter(info: dict[str, Any], connection: Connection, link: Link) -> None:
    """Prepare a connection to the master for the statements of a session."""
    if level_of(connection) == AUTOCOMMIT:
        info[COMMITS_AT_ONCE] = True
    if is_recording():
        link.writes.refresh_baseline()
