"""Use the connections of SQLAlchemy's pools as links.

replswitch chooses a connection for a session before the session connects, and reserves it for the session until then.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from operator import attrgetter
from os import getpid
from time import monotonic
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import PendingRollbackError

from replswitch.drivers.written import UNKNOWN
from replswitch.engine.attempt import Attempt
from replswitch.engine.port import Port
from replswitch.engine.route import Route
from replswitch.engine.servers import Link
from replswitch.sqlalchemy.facts import options_of
from replswitch.telemetry.counters import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from replswitch.decision import State
    from replswitch.drivers import Driver, Raw
    from replswitch.engine.block import Block
    from replswitch.engine.servers import Server
    from replswitch.scope import Scope
    from replswitch.state import Frame
    from replswitch.telemetry.counters import Tally

#: A key in the `info` of a connection of SQLAlchemy's pool: its link.
LINK: Final = "replswitch.link"
#: A further key: a weak reference to the route of the session that uses the connection, or used it last.
ROUTE: Final = "replswitch.route"
#: A further key: true while only replswitch's own queries run on the connection.
OUR_OWN: Final = "replswitch.our_own"
#: A further key: for a connection to one address of a host, the server and the address (F7).
AT: Final = "replswitch.at"
#: A further key: true if the connection was used in autocommit mode, until it goes back to the pool.
COMMITS_AT_ONCE: Final = "replswitch.commits_at_once"


#: `Calls.attempts` if no attempt has failed.
NO_ATTEMPTS: Final[Mapping[tuple[int, object], Attempt]] = MappingProxyType({})


class LateLink(Link):
    """A link without a connection, which the session opens later."""

    __slots__ = ()

    def __init__(self, server: Server) -> None:
        self.server, self.raw, self.writes, self.readable = server, None, UNKNOWN, bool
        self.opened_at, self.process, self.identity = monotonic(), getpid(), None


class Lease:
    """A connection to a slave, lent by its pool and reserved for one session.

    Attributes:
        link: the connection's link.
        engine: the engine through which the session gets the connection.
        loan: the connection as the pool lent it. None before it is needed, and after it was taken or given back.
        reference: a weak reference to the lease, for `SlaveEngine.offered`.
    """

    __slots__ = ("__weakref__", "engine", "link", "loan", "reference")

    def __init__(self, link: Link, engine: SlaveEngine, loan: PoolProxiedConnection | None) -> None:
        self.link = link
        self.engine = engine
        self.loan = loan
        self.reference = weakref.ref(self)

    def take(self) -> PoolProxiedConnection | None:
        """Return the lent connection, which the caller must give back; None if there is no valid one."""
        loan, self.loan = self.loan, None
        return loan if loan is not None and loan.is_valid else None

    def give_back(self) -> None:
        """Give the connection back to its pool, unless it was taken."""
        if (loan := self.take()) is not None:
            loan.close()

    def discard(self) -> None:
        """Close the connection, unless it was taken."""
        if (loan := self.take()) is not None:
            loan.invalidate()


class SlaveEngine(OptionEngine):
    """The engine that sessions get for a slave. It has the pool, dialect and events of the application's own engine.

    replswitch chooses one connection for a session, and queries on it whether the slave has caught up far enough. The
    session must get this very connection of the pool. So this engine offers it, and the next `connect` takes it.

    Attributes:
        offered: a `threading.local`. Its attribute ``lease`` is a reference to the lease that the next `connect` takes.
    """

    def _set_has_events(self, has_events: bool) -> None:
        self._with_events._has_events = has_events

    # SQLAlchemy reads it at each step of a connection, so the getter is a function in C.
    _has_events: Any = property(attrgetter("_with_events._has_events"), _set_has_events)

    def __init__(self, proxied: Engine, execution_options: Mapping[str, Any]) -> None:
        self.offered = threading.local()
        self._with_pool: Engine = proxied
        self._with_events: Any = SimpleNamespace(_has_events=True) if execution_options else proxied
        super().__init__(proxied, execution_options)
        if not execution_options:  # options such as isolation_level set a listener, which the other engine must not run
            # SQLAlchemy joins the two engines' events, and then calls a function of its own for each event it looks up.
            self.dispatch = proxied.dispatch

    def lend(self, to: Engine | None, link: Link | None = None) -> Lease:
        """Reserve a connection to the slave for a session, and return the lease.

        Args:
            to: the engine that the session is bound to, if it was made from the master's engine with other options;
                None if the session is bound to the master's engine itself.
            link: a link without a connection, if no connection is needed yet. The pool then lends no connection.
        """
        engine = self if to is None else SlaveEngine(self, options_of(to))
        if link is not None:
            return Lease(link, engine, None)
        loan = self._with_pool.pool.connect()
        return Lease(loan.info[LINK], engine, loan)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return the offered connection, or one from the pool."""
        offered: Any = vars(self.offered).pop("lease", None)
        lease = None if offered is None else offered()
        return (None if lease is None else lease.take()) or super().raw_connection()


def lost_transaction(error: Exception) -> PendingRollbackError:
    """Return the error that the statements of a session raise after ``error`` has ended the session's transaction."""
    return PendingRollbackError(
        f"The session's transaction was lost because of an error of the server ({error}). Call rollback() on the "
        "session, and begin again.",
        code="8s2b",
    )


class PoolPort(Port):
    """A `Port` that reaches the servers through SQLAlchemy's pools, for work outside sessions.

    Args:
        driver: the driver of all servers.

    Attributes:
        dropped: the link that was dropped last.
    """

    dropped: Link | None = None

    def __init__(self, driver: Driver) -> None:
        self.driver, self.one_link = driver, driver.in_memory

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Make the pool replace each idle connection by a new one. Connections in use are closed when they fail."""
        if not self.one_link:  # a database in memory ends with its connection
            server.lost_at = monotonic()
            self.dropped = link or self.dropped

    def retire(self, server: Server) -> None:
        """Close the idle connections to a server whose address is gone."""
        server.source.close_idle()

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        """Lend a connection from the server's pool for the block of a ``with`` statement."""
        loan = server.source.pool.connect()
        loan.info[OUR_OWN] = True
        try:
            yield loan.dbapi_connection
        finally:
            loan.close()


class Calls:
    """The calls of a session's methods that run statements. A retry after a failed statement repeats the whole call.

    Attributes:
        number: the number of the latest call; 1 before the first.
        running: the number of the innermost running call; 0 if none is running.
        attempts: the failed attempts of the running calls, by the number of the call and the session's route in a
            database.
    """

    number = 1
    running = 0
    attempts: Mapping[tuple[int, object], Attempt] = NO_ATTEMPTS

    def attempt(self, route: object, *, single: bool) -> Attempt:
        """Return the attempts of the running call in a database. Without one so far, record a new one."""
        key = self.running, route
        if key not in self.attempts:
            self.attempts = {**self.attempts, key: Attempt(single=single, began_at=self.running)}
        return self.attempts[key]

    def may_repeat(self, session: Session, connection: Connection) -> bool:
        """Return whether the running call may run again, after a statement has failed on a connection.

        A flush may not run again, because a flush that fails is rolled back. If `Session.connection` gave an isolation
        level to the connection, the call may not run again, because another connection would not have that level.
        """
        own, general = (each.get_execution_options().get("isolation_level") for each in (connection, connection.engine))
        return bool(self.running) and not session._flushing and own == general


class LateRoute(Route):
    """A route that chooses a link before the session connects. The link joins the transaction when it connects."""

    joins_late = True

    def _hold(self, scope: Scope, why: str) -> None:
        self.held = scope, why

    def resume(self, scope: Scope, *, has_read: bool) -> None:
        """Continue where `Alone` has ended: take its scope, and whether this scope has read from a slave."""
        self._scope, self.has_read = scope, has_read

    def resume_transaction(self, block: Block, frame: Frame | None, side: State, why: str, tally: Tally) -> None:
        """Take over a transaction with one link, and how this link was chosen."""
        self.block, self._noted = block, (frame, block.links[0])
        self.side, self.reason, self.tally = side, why, tally

    def tally_on(self, link: Link) -> Tally:
        """Return the counter of statements for a link in the transaction, even if another link was chosen since."""
        tally, server = self.tally, link.server
        if tally.labels[2] == server.name:
            return tally
        return STATEMENTS.tally(self.database.name, server.state, server.name, "transaction")

    def look_for_writes(self, link: Link, *, recorded: bool | None = None) -> None:
        """Do nothing, because `replswitch.sqlalchemy.opening` looks for writes, inside and outside sessions."""
