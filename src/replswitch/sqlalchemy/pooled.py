"""The connections of SQLAlchemy's pools: each is one link to a server, lent to a session until that connects."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.base import OptionEngine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import PoolProxiedConnection

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.servers import Link, Server

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
        loan: the pool's loan; None once the connection is taken or given back.
        reference: to the lease, for `SlaveEngine.offered`.
    """

    __slots__ = ("__weakref__", "engine", "link", "loan", "reference")

    def __init__(self, loan: PoolProxiedConnection, engine: SlaveEngine) -> None:
        self.link: Link = loan.info[LINK]
        self.engine = engine
        self.loan: PoolProxiedConnection | None = loan
        self.reference = weakref.ref(self)

    def take(self) -> PoolProxiedConnection | None:
        """Return the loan, which the caller gives back; None if it is gone."""
        loan, self.loan = self.loan, None
        return loan if loan is not None and loan.is_valid else None

    def give_back(self) -> None:
        """Give the connection back to its pool, unless it is taken."""
        loan = self.take()
        if loan is not None:
            loan.close()

    def discard(self) -> None:
        """Close the connection, unless it is taken."""
        loan = self.take()
        if loan is not None:
            loan.invalidate()


class SlaveEngine(OptionEngine):
    """A slave's engine as sessions get it. It shares the pool, the dialect and the events of the application's.

    What was chosen for a session is one connection, which was asked whether it shows what the session must see. To
    give the session this one and no other from the pool, it is offered here, and the next `connect` takes it.

    Attributes:
        offered: in each thread, as its ``lease``, the reference of the lease that the next connection is to take.
    """

    def __init__(self, proxied: Engine, execution_options: Mapping[str, Any]) -> None:
        self.offered = threading.local()
        self._derived: weakref.WeakKeyDictionary[Engine, SlaveEngine] = weakref.WeakKeyDictionary()
        super().__init__(proxied, execution_options)

    def like(self, master: Engine) -> SlaveEngine:
        """Return the engine with the options of an engine that was made from the master's."""
        derived = self._derived.get(master)
        if derived is None:
            options = {name: value for name, value in master.get_execution_options().items() if name != SWITCH}
            derived = self._derived[master] = SlaveEngine(self._proxied, options)
        return derived

    def raw_connection(self) -> PoolProxiedConnection:
        """Return the connection that is offered, or one from the pool."""
        offered: weakref.ref[Lease] | None = getattr(self.offered, "lease", None)
        if offered is not None:
            self.offered.lease = None
            lease = offered()
            loan = None if lease is None else lease.take()
            if loan is not None:
                return loan
        return super().raw_connection()


class PoolPort:
    """How the engine reaches the servers through SQLAlchemy's pools, where no session is concerned.

    See `replswitch.engine.port.Port`.

    Args:
        driver: of all servers.

    Attributes:
        dropped: the link that was dropped last.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.one_link = driver.in_memory
        self.dropped: Link | None = None

    def open(self, server: Server) -> Link:
        """Return the link of a connection from the server's pool."""
        raise NotImplementedError

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Let the pool replace what is idle, before it lends it. SQLAlchemy closes what is in use."""
        if not self.one_link:  # a database in memory ends with its connection
            server.lost_at = monotonic()
            self.dropped = link or self.dropped

    def join(self, link: Link) -> None:
        """Nothing: SQLAlchemy begins transactions."""

    def leave(self, link: Link) -> None:
        """Nothing: the application has the connection."""

    def part_with(self, link: Link) -> None:
        """Nothing: likewise."""

    def lose_block(self, error: Exception) -> None:
        """Nothing: likewise."""

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        """Lend a connection from the server's pool for a while."""
        loan = server.source.pool.connect()
        loan.info[OUR_OWN] = True
        try:
            yield loan.dbapi_connection
        finally:
            loan.close()

    def as_own(self, error: Exception) -> Exception:
        """Return the error as it is."""
        return error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Say no: nothing is known of the transactions of others."""
        return False


def usable(connection: Connection | None) -> bool:
    """Say whether a connection of SQLAlchemy's has one of the driver's."""
    return connection is not None and not connection.closed and not connection.invalidated


def is_autocommit(bind: Connection | Engine) -> bool:
    """Say whether each statement is committed by itself, as `create_engine` or an execution option has set it."""
    level = bind.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(bind.dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=…)
    return bool(level == "AUTOCOMMIT")


def streams(context: Any) -> bool:
    """Say whether the result of a statement is read piece by piece."""
    return context is not None and bool(context.execution_options.get("stream_results"))
