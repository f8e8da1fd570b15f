"""The connections of SQLAlchemy's pools: each is one link to a server, lent to a session until that connects."""

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

#: Under this name a master's engine has its switch among its execution options, which engines made from it inherit.
SWITCH: Final = "replswitch"

#: What we keep in the `info` of a connection of SQLAlchemy's pool: its link, …
LINK: Final = "replswitch.link"
#: … a weak reference to the route of the session that has it or had it last, …
ROUTE: Final = "replswitch.route"
#: … and whether only questions of ours run on it.
OUR_OWN: Final = "replswitch.our_own"


class Lease:
    """A connection to a slave, lent by its pool and meant for one session.

    Attributes:
        link: the connection's link.
        engine: the engine by which the session gets it.
        loan: the pool's loan; None before the session connects, and once the connection is taken or given back.
        reference: to the lease, for `SlaveEngine.offered`.
    """

    __slots__ = ("__weakref__", "engine", "link", "loan", "reference")

    def __init__(self, link: Link, engine: SlaveEngine, loan: PoolProxiedConnection | None) -> None:
        self.link = link
        self.engine = engine
        self.loan = loan
        self.reference = weakref.ref(self)

    def take(self) -> PoolProxiedConnection | None:
        """Return the loan, which the caller gives back; None if it is gone."""
        loan, self.loan = self.loan, None
        return loan if loan is not None and loan.is_valid else None

    def give_back(self) -> None:
        """Give the connection back to its pool, unless it is taken."""
        if (loan := self.take()) is not None:
            loan.close()

    def discard(self) -> None:
        """Close the connection, unless it is taken."""
        if (loan := self.take()) is not None:
            loan.invalidate()


class SlaveEngine(OptionEngine):
    """A slave's engine as sessions get it. It shares the pool, the dialect and the events of the application's.

    What was chosen for a session is one connection, which was asked whether it shows what the session must see. To
    give the session this one and no other from the pool, it is offered here, and the next `connect` takes it.

    Attributes:
        offered: in each thread, as its ``lease``, a reference to the lease that the next connection is to take.
    """

    def __init__(self, proxied: Engine, execution_options: Mapping[str, Any]) -> None:
        self.offered = threading.local()
        super().__init__(proxied, execution_options)

    def lend(self, to: Engine, link: Link | None = None) -> Lease:
        """Lend a connection to a session that is bound to ``to``: the master's engine, or one with other options.

        Args:
            to: likewise.
            link: stands for a connection that is not needed yet, so none is lent.
        """
        is_masters = to.get_execution_options()[SWITCH].master is to
        engine = self if is_masters else SlaveEngine(self._proxied, options_of(to))
        if link is not None:
            return Lease(link, engine, None)
        loan = self.pool.connect()
        return Lease(loan.info[LINK], engine, loan)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return the connection that is offered, or one from the pool."""
        offered: Any = vars(self.offered).pop("lease", None)
        lease = None if offered is None else offered()
        return (None if lease is None else lease.take()) or super().raw_connection()


class PoolPort(Port):
    """How the engine reaches the servers through SQLAlchemy's pools, where no session is concerned.

    Args:
        driver: of all servers.

    Attributes:
        dropped: the link that was dropped last.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.one_link = driver.in_memory
        self.dropped: Link | None = None

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Let the pool replace what is idle, before it lends it. SQLAlchemy closes what is in use."""
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
    """The calls of a session in which it runs statements. One that a statement has failed in runs again as a whole.

    Attributes:
        number: that of the latest one; 1 before the first.
        running: the number of the innermost one that is running; 0 outside any.
        attempts: what has become of it so far, by the session's route in each database.
    """

    def __init__(self) -> None:
        self.number, self.running = 1, 0
        self.attempts: dict[object, Attempt] = {}


class LateRoute(Route):
    """A route whose links join the transaction late: not when they are chosen, but when the session connects.

    Attributes:
        held: the scope that the master will serve from then on, and the reason; None where only this statement.
    """

    held: tuple[Scope, str] | None = None

    def choose(self, *args: Any, **options: Any) -> Link:
        """Choose anew; see `replswitch.engine.selection.Selection.choose`."""
        self.held = None
        return super().choose(*args, **options)

    def _join(self, block: Block, link: Link, attempt: Attempt | None) -> Link | None:
        return None

    def _hold(self, scope: Scope, why: str) -> None:
        self.held = scope, why

    def look_for_writes(self, link: Link, *, recorded: bool | None = None) -> None:
        """Nothing: `replswitch.sqlalchemy.opening` looks, also where no session is concerned."""


def options_of(master: Engine) -> dict[str, Any]:
    """Return the execution options of a master's engine that are the application's."""
    return {name: value for name, value in master.get_execution_options().items() if name != SWITCH}


def remove_from(session: Session, connection: Connection) -> None:
    """Let a session's transaction, and its savepoints, go on without a connection."""
    transaction: Any = session._transaction
    while transaction is not None:
        for key in (connection, connection.engine):
            transaction._connections.pop(key, None)
        transaction = transaction.parent


def usable(connection: Connection | None) -> bool:
    """Say whether a connection of SQLAlchemy's has one of the driver's."""
    return connection is not None and not connection.closed and not connection.invalidated


def is_autocommit(bind: Connection | Engine) -> bool:
    """Say whether each statement is committed by itself, as `create_engine` or an execution option has set it."""
    by_engine = getattr(bind.dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=…)
    return bool(bind.get_execution_options().get("isolation_level", by_engine) == "AUTOCOMMIT")


def streams(context: Any) -> bool:
    """Say whether the result of a statement is read piece by piece."""
    return context is not None and bool(context.execution_options.get("stream_results"))
