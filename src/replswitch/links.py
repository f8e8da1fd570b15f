"""Physical connections to one server, kept in SQLAlchemy's QueuePool, which stands alone.

The pool neither pings nor resets: what a link needs before it is used again, its driver does, and only then.
"""

from __future__ import annotations

import os
import time
import traceback
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, PoolResetState, QueuePool

    from replswitch.drivers import Driver, Raw
    from replswitch.servers import Server


class Link:
    """One physical connection, lent to one thread or task. It goes back to its pool when nothing refers to it.

    So a cursor that is still being read keeps its link, whatever ended meanwhile.
    """

    __slots__ = ("_loan", "opened_at", "raw", "server")

    def __init__(self, server: Server, loan: PoolProxiedConnection) -> None:
        self.server = server
        self.raw: Raw = loan.dbapi_connection
        self.opened_at: float = loan.info.setdefault("opened_at", time.monotonic())  # it is lent when it is opened
        self._loan = loan

    @property
    def identity(self) -> Hashable | None:
        """Which server it leads to, as the server says; None before it was asked. Kept with the connection."""
        return self._loan.info.get("identity")

    @identity.setter
    def identity(self, identity: Hashable | None) -> None:
        self._loan.info["identity"] = identity

    def discard(self) -> None:
        """Close the connection rather than give it back."""
        if self._loan.is_valid:
            self._loan.invalidate()


class LinkPool:
    """The links to one server. As many as are asked for at a time; at most ``size`` idle ones are kept.

    Attributes:
        driver: opens them.
        settings: of the server, as the driver takes them.
        current: the pool that lends them.
    """

    def __init__(self, driver: Driver, settings: dict[str, Any], *, read_only: bool, size: int) -> None:
        self.driver = driver
        self.settings = settings
        self._read_only = read_only
        self._size = size
        self._closed = False
        self.renew()
        _pools.add(self)

    def take(self, server: Server) -> Link:
        """Lend a link that is alive: an idle one, or a new one. Idle ones that the server closed are dropped.

        Raises:
            Exception: the driver's own error, when a new link cannot be opened.
        """
        for _ in range(self._size):
            link = Link(server, self._lend())
            if self.driver.alive(link.raw):
                return link
            link.discard()
        return Link(server, self._lend())  # a new one: should it be dead as well, the first statement says why

    def _lend(self) -> PoolProxiedConnection:
        try:
            return self.current.connect()
        except Exception as error:
            # SQLAlchemy and PyMySQL keep the error in a variable of a frame that its traceback holds. In that circle,
            # until it is collected, hang the frames of all callers and what they hold: their links.
            traceback.clear_frames(error.__traceback__)
            raise

    def close(self) -> None:
        """Close the idle links. Those on loan are closed when nothing refers to them any more."""
        self._closed = True
        self.current.dispose()

    def drop_idle(self) -> None:
        """Close the idle links, and keep none of those on loan."""
        pool = self.current
        self.renew()
        pool.dispose()

    def renew(self) -> None:
        """Begin with an empty pool: the old one, its locks and its idle links are left alone."""
        self._generation = generation = object()
        self.current = _new_queue_pool(self._open, partial(self._rest, generation), self._size)

    def _open(self) -> Raw:
        return self.driver.open(self.settings, read_only=self._read_only)

    def _rest(self, generation: object, raw: Raw, entry: ConnectionPoolEntry, state: PoolResetState) -> None:
        if self._closed or generation is not self._generation or not self.driver.reusable(raw):
            entry.invalidate()


def _new_queue_pool(
    opener: Callable[[], Raw], rest: Callable[[Raw, ConnectionPoolEntry, PoolResetState], None], size: int
) -> QueuePool:
    try:  # here, so that `import replswitch` does not bring SQLAlchemy along
        from sqlalchemy import event  # noqa: PLC0415 - see the line above
        from sqlalchemy.pool import QueuePool  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise ConfigurationError(
            "replswitch.connect() keeps its connections in SQLAlchemy's pool, which is not installed: "
            "pip install 'replswitch[mysql]'."
        ) from error
    pool = QueuePool(opener, pool_size=size, max_overflow=-1, use_lifo=True, reset_on_return=None)
    event.listen(pool, "reset", rest)
    return pool


_pools: Final[weakref.WeakSet[LinkPool]] = weakref.WeakSet()


# In a forked child: the parent's pools. Were they let go, Python would close their links before the drivers were told
# of the fork, and so end the parent's sessions.
_of_parent: Final[list[QueuePool]] = []


def _renew_all() -> None:
    for pool in _pools:
        _of_parent.append(pool.current)
        pool.renew()


# A forked child must neither use the parent's sockets nor wait for locks that a thread of the parent held.
os.register_at_fork(after_in_child=_renew_all)
