"""The servers of one database, and the physical connections to them."""

from __future__ import annotations

from os import getpid
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.decision import State
    from replswitch.drivers import Driver, Raw


class Server:
    """One database server in one of the two roles, master or slave. All threads of a process share it.

    Attributes:
        name: its display name, such as ``slave1.db`` or ``127.0.0.1:3307``.
        state: the state that it serves. Links to a server in slave state are read-only.
        weight: its share of the reads, relative to the other servers; above 0.
        source: the object with which the binding opens links, such as a pool, an engine or settings.
        lost_at: when it was last found unreachable, by `time.monotonic`; 0 if never. Links opened before that are dead.
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
    """A request to `replswitch.engine.choose.run` to open a link. The answer is the link, or `Failed`."""

    server: Server


class Servers:
    """The servers of one database.

    Attributes:
        master: the master.
        slaves: the servers for reads, always the same tuple. Without slaves it holds only `master_read_only` (S10).
            With slaves behind a host name, the tuple is replaced as a whole (`replswitch.engine.resolving`).
        master_read_only: the master over read-only links, for reads that no slave can serve.
        has_slaves: whether there are slaves. Without slaves, every position is treated as reached.
    """

    __slots__ = ("has_slaves", "master", "master_read_only", "slaves")

    def __init__(self, master: Server, slaves: tuple[Server, ...], master_read_only: Server, has_slaves: bool) -> None:
        self.master = master
        self.slaves = slaves
        self.master_read_only = master_read_only
        self.has_slaves = has_slaves

    def look_up(self) -> None:
        """Look up the host names in the settings of the slaves, if the last answer is too old."""

    def unresolved(self) -> Sequence[tuple[str, Exception]]:
        """Return the host names that have no known address, with the error of the lookup."""
        return ()


class Link:
    """One physical connection to a server.

    Attributes:
        server: the server.
        raw: the driver's connection.
        writes: the connection's write tracker.
        readable: see `replswitch.drivers.Driver.readable`.
        opened_at: when it was opened, by `time.monotonic`.
        process: the id of the process that opened it; the link belongs to that process (S12).
        identity: the identity that the server has reported; None until it is asked. A host name is not enough, because
            it may belong to a load balancer.
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

    def take_connection_of(self, other: Link) -> None:
        """Take the connection of another link, if this one has none so far."""
        self.raw, self.writes, self.readable = other.raw, other.writes, other.readable

    @property
    def is_own(self) -> bool:
        """Whether this process has opened the link. After a fork, a link belongs to the parent process (S12)."""
        return self.process == getpid()
