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
    """One database server in one of its two roles. All threads of a process share it.

    Attributes:
        name: what people know it by: ``slave1.db``, ``127.0.0.1:3307``.
        state: the state that it serves. Links to a server of slave state refuse writes.
        weight: its share of the reads, compared with those of the others; above 0.
        source: what the binding opens links with: its pool, its engine, its settings.
        lost_at: when it was last found unreachable, by `time.monotonic`; 0 before that. Links that are older lead
            nowhere.
        opening: the request for a link to it, made once.
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
        slaves: the servers of reads, the same tuple each time. Without slaves it holds `master_read_only` alone (S10).
        master_read_only: the master over links that refuse writes; for reads that no slave can serve.
        has_slaves: whether there are any. Without, every position counts as reached.
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
        writes: what tells of its writes.
        readable: see `replswitch.drivers.Driver.readable`.
        opened_at: when it was opened, by `time.monotonic`.
        process: the id of the process that opened it, and to which it belongs (S12).
        identity: which server it leads to, as the server says; None before it was asked. A name is not enough: it may
            be a load balancer's.
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
        """Whether this process has opened it. One that a fork has left in two processes is the parent's (S12)."""
        return self.process == getpid()
