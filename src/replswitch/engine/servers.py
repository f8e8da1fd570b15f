"""The servers of one database, and the physical connections to them."""

from __future__ import annotations

from os import getpid
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.decision import State
    from replswitch.drivers import Driver, Raw


class Server:
    """One database server in one of the two roles. All threads of a process share it.

    Attributes:
        name: its display name: ``slave1.db``, ``127.0.0.1:3307``.
        state: the state that it serves. Links to a server in slave state are read-only.
        weight: its share of the reads, relative to the other servers; above 0.
        source: the object with which the binding opens links: its pool, its engine, its settings.
        lost_at: when it was last found unreachable, by `time.monotonic`; 0 if never. Older links are dead.
        opening: the `Open` request for a link to it, created once.
    """

    __slots__ = ("__weakref__", "lost_at", "name", "opening", "source", "state", "weight")

    def __init__(self, name: str, state: State, source: Any = None, weight: float = 1) -> None:
        self.name = name
        self.state = state
        self.source = source
        self.weight = weight
        self.lost_at = 0.0
        self.opening = Open(self)

    def __repr__(self) -> str:
        return f"<Server {self.name} ({self.state})>"


class Open(NamedTuple):
    """A request of `replswitch.engine.choose`: return a link to a server, or `Failed`."""

    server: Server


class Servers(NamedTuple):
    """The servers of one database.

    Attributes:
        master: the master.
        slaves: the servers for reads, always the same tuple. Without slaves it holds only `master_read_only` (S10).
        master_read_only: the master over read-only links, for reads that no slave can serve.
        has_slaves: whether there are slaves. Without slaves, every position counts as reached.
    """

    master: Server
    slaves: tuple[Server, ...]
    master_read_only: Server
    has_slaves: bool


class Link:
    """One physical connection to a server.

    Attributes:
        server: the server.
        raw: the driver's connection.
        writes: the connection's write tracker.
        readable: see `replswitch.drivers.Driver.readable`.
        opened_at: when it was opened, by `time.monotonic`.
        process: the id of the process that opened it; the link belongs to that process (S12).
        identity: the identity that the server has reported; None before it was asked. A host name is not enough: it
            may belong to a load balancer.
    """

    __slots__ = ("__weakref__", "identity", "opened_at", "process", "raw", "readable", "server", "writes")

    def __init__(self, server: Server, raw: Raw, driver: Driver) -> None:
        self.server = server
        self.raw = raw
        self.writes = driver.writes_of(raw)
        self.readable = driver.readable(raw)
        self.opened_at = monotonic()
        self.process = getpid()
        self.identity: Hashable | None = None

    @property
    def is_own(self) -> bool:
        """Whether this process has opened the link. After a fork, a link belongs to the parent process (S12)."""
        return self.process == getpid()
