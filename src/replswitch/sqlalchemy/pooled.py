"""The connections of SQLAlchemy's pools. Each is one link to a server, reserved for a session until it connects."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.base import OptionEngine

from replswitch.engine.port import Port
from replswitch.engine.route import Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt, Block
    from replswitch.engine.servers import Link, Server
    from replswitch.scope import Scope

#: The execution option of a master's engine that holds its switch. Engines made from the engine inherit it.
SWITCH: Final = "replswitch"

#: A key in the `info` of a connection of SQLAlchemy's pool: its link.
LINK: Final = "replswitch.link"
#: Likewise: a weak reference to the route of the session that uses the connection, or used it last.
ROUTE: Final = "replswitch.route"
#: Likewise: true while only replswitch's own questions run on the connection.
OUR_OWN: Final = "replswitch.our_own"


class Lease:
    """A connection to a slave, lent by its pool and reserved for one session.

    Attributes:
        link: the connection's link.
        engine: the engine through which the session gets the connection.
        loan: the connection as the pool lent it. None if none was needed yet, and once it is taken or given back.
        reference: a weak reference to the lease, for `SlaveEngine.offered`.
    """

    __slots__ = ("__weakref__", "engine", "link", "loan", "reference")

    def __init__(self, link: Link, engine: SlaveEngine, loan: PoolProxiedConnection | None) -> None:
        self.link = link
        self.engine = engine
        self.loan = loan
        self.reference = weakref.ref(self)

    def take(self) -> PoolProxiedConnection | None:
        """Return the loan, which the caller must give back; None if there is no valid loan."""
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
    """A slave's engine as sessions get it. It shares the pool, the dialect and the events of the application's engine.

    replswitch chooses one connection for a session, after asking on it whether the slave has caught up far enough. The
    session must get this connection and no other of the pool. So it is offered here, and the next `connect` takes it.

    Attributes:
        offered: for each thread, in its attribute ``lease``, a reference to the lease that the next `connect` takes.
    """

    def __init__(self, proxied: Engine, execution_options: Mapping[str, Any]) -> None:
        self.offered = threading.local()
        super().__init__(proxied, execution_options)

    def lend(self, to: Engine, link: Link | None = None) -> Lease:
        """Lend a connection to a session.

        Args:
            to: the engine that the session is bound to: the master's, or one made from it with other options.
            link: a link without a connection, if none is needed yet. The pool then lends none.
        """
        is_masters = to.get_execution_options()[SWITCH].master is to
        engine = self if is_masters else SlaveEngine(self._proxied, options_of(to))
        if link is not None:
            return Lease(link, engine, None)
        loan = self.pool.connect()
        return Lease(loan.info[LINK], engine, loan)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return the offered connection, or one from the pool."""
        offered: Any = vars(self.offered).pop("lease", None)
        lease = None if offered is None else offered()
        return (None if lease is None else lease.take()) or super().raw_connection()


class PoolPort(Port):
    """The engine's port to the servers through SQLAlchemy's pools, for work outside sessions.

    Args:
        driver: the driver of all servers.

    Attributes:
        dropped: the link that was dropped last.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.one_link = driver.in_memory
        self.dropped: Link | None = None

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Make the pool replace each idle connection before lending it. SQLAlchemy closes connections in use."""
        if not self.one_link:  # a database in memory ends with its connection
            server.lost_at = monotonic()
            self.dropped = link or self.dropped

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        """Lend a connection from the server's pool for a while."""
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
        attempts: the failed attempts of the running call, by the session's route in each database.
    """

    def __init__(self) -> None:
        self.number, self.running = 1, 0
        self.attempts: dict[object, Attempt] = {}

    def may_repeat(self, session: Session, connection: Connection) -> bool:
        """Return whether the running call may run again, after a statement has failed on a connection.

        A flush that fails is rolled back. An isolation level that `Session.connection` was given is that of one
        connection, and would be lost on another.
        """
        own, general = (each.get_execution_options().get("isolation_level") for each in (connection, connection.engine))
        return bool(self.running) and not session._flushing and own == general


class LateRoute(Route):
    """A route whose links join the transaction late: not when they are chosen, but when the session connects.

    Attributes:
        held: the scope that the master will serve once the session connects, and the reason; None if the master
            serves only this statement.
    """

    held: tuple[Scope, str] | None = None

    def choose(self, *args: Any, **options: Any) -> Link:
        """Choose again; see `replswitch.engine.selection.Selection.choose`."""
        self.held = None
        return super().choose(*args, **options)

    def _join(self, block: Block, link: Link, attempt: Attempt | None) -> Link | None:
        return None

    def _hold(self, scope: Scope, why: str) -> None:
        self.held = scope, why

    def look_for_writes(self, link: Link, *, recorded: bool | None = None) -> None:
        """Do nothing: `replswitch.sqlalchemy.opening` looks for writes, inside and outside sessions."""


def options_of(master: Engine) -> dict[str, Any]:
    """Return the application's execution options of a master's engine, without replswitch's own."""
    return {name: value for name, value in master.get_execution_options().items() if name != SWITCH}


def remove_from(session: Session, connection: Connection) -> None:
    """Remove a connection from a session's transaction and its savepoints, which continue without it."""
    transaction: Any = session._transaction
    while transaction is not None:
        for key in (connection, connection.engine):
            transaction._connections.pop(key, None)
        transaction = transaction.parent


def usable(connection: Connection | None) -> bool:
    """Return whether a connection of SQLAlchemy still holds a connection of the driver."""
    return connection is not None and not connection.closed and not connection.invalidated


def is_autocommit(bind: Connection | Engine) -> bool:
    """Return whether each statement is committed by itself."""
    return has_level(bind, "AUTOCOMMIT")


def has_level(bind: Connection | Engine, level: str) -> bool:
    """Return whether transactions have an isolation level: `create_engine` or an execution option can set this."""
    by_engine = getattr(bind.dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=…)
    return bool(bind.get_execution_options().get("isolation_level", by_engine) == level)


def streams(context: Any) -> bool:
    """Return whether the result of a statement is read piece by piece."""
    return context is not None and bool(context.execution_options.get("stream_results"))
