"""The slaves as sessions reach them: the engine of each, and its connections until a session has them."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.engine.base import OptionEngine

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from sqlalchemy import Engine
    from sqlalchemy.pool import PoolProxiedConnection

    from replswitch.drivers import Driver, Raw
    from replswitch.sqlalchemy.part import Part

#: Under this name a master's engine has its switch among its execution options, which engines made from it inherit.
SWITCH: Final = "replswitch"

#: What we keep in the `info` of a connection of SQLAlchemy's pool.
OPENED_AT: Final = "replswitch.opened_at"
IDENTITY: Final = "replswitch.identity"
LINK: Final = "replswitch.link"
PART: Final = "replswitch.part"
COMMIT: Final = "replswitch.commit"
OUR_OWN: Final = "replswitch.our_own"
FRESH: Final = "replswitch.fresh"


class SlaveEngine(OptionEngine):
    """A slave's engine as sessions get it. It shares the pool, the dialect and the events of the application's.

    What was chosen for a session is one connection, which was asked whether it shows what the session must see. So
    that the session gets this one and no other from the pool, it is offered here, and the next `connect` takes it.
    """

    def __init__(self, proxied: Engine, execution_options: Mapping[str, Any]) -> None:
        self._offered = threading.local()
        super().__init__(proxied, execution_options)

    def offer(self, link: Link) -> None:
        """Let the next connection that this thread makes be that of ``link``."""
        self._offered.link = link

    def raw_connection(self) -> PoolProxiedConnection:
        """Return the connection that is offered, or one from the pool."""
        link: Link | None = getattr(self._offered, "link", None)
        if link is not None:
            self._offered.link = None
            if link.take():
                return link.loan
        return super().raw_connection()


@dataclass(eq=False)
class SlaveServer:
    """One slave.

    Attributes:
        name: what people know it by.
        engine: its engine, as sessions get it.
        origin: the same as the application made it.
        master: the master's engine.
        weight: its share of the reads, compared with those of the others.
    """

    name: str
    engine: SlaveEngine
    origin: Engine
    master: Engine
    weight: float = 1
    _derived: weakref.WeakKeyDictionary[Engine, SlaveEngine] = field(default_factory=weakref.WeakKeyDictionary)

    def engine_like(self, master: Engine) -> SlaveEngine:
        """Return the engine with the options that an engine of the master's has, which may be derived from its own."""
        if master is self.master:
            return self.engine
        derived = self._derived.get(master)
        if derived is None:
            options = {name: value for name, value in master.get_execution_options().items() if name != SWITCH}
            derived = self._derived[master] = SlaveEngine(self.origin, options)
            count_reads(derived)
        return derived


class Link:
    """One connection to a slave, lent by its pool and meant for one session.

    Attributes:
        part: the session's part in the database; None when its transaction is over.
        engine: by which the session gets it.
        is_taken: somebody has got it, who gives it back.
        is_joined: that is the session, in its transaction.
    """

    __slots__ = ("__weakref__", "engine", "is_joined", "is_taken", "loan", "opened_at", "part", "raw", "server")

    def __init__(self, server: SlaveServer, loan: PoolProxiedConnection, part: Part | None = None) -> None:
        self.server = server
        self.loan = loan
        self.raw: Raw = loan.dbapi_connection
        self.opened_at: float = loan.info.setdefault(OPENED_AT, time.monotonic())
        self.part = part
        self.is_taken = False
        self.is_joined = False
        self.engine = server.engine

    @property
    def identity(self) -> Hashable | None:
        """Which server it leads to, as the server says; None before it was asked. Kept with the connection."""
        return self.loan.info.get(IDENTITY)

    @identity.setter
    def identity(self, identity: Hashable | None) -> None:
        self.loan.info[IDENTITY] = identity

    def take(self) -> bool:
        """Let the session have it, which gives it back. False if it is gone."""
        if self.is_taken or not self.loan.is_valid:
            return False
        self.is_taken = True
        self.loan.info[LINK] = weakref.ref(self)
        return True

    def give_back(self) -> None:
        """Give it back, unless the session has it."""
        if not self.is_taken and self.loan.is_valid:
            self.is_taken = True
            self.loan.close()

    def discard(self) -> None:
        """Close it, unless the session has it."""
        if not self.is_taken and self.loan.is_valid:
            self.is_taken = True
            self.loan.invalidate()


class Reach:
    """How one session reaches the slaves; see `replswitch.slaves.Reach`."""

    def __init__(self, driver: Driver, master: Engine, part: Part) -> None:
        self.driver = driver
        self._master = master
        self._part = part
        self._opened: list[Link] = []

    def link_to(self, server: SlaveServer) -> Link:
        """Return the link that waits for the session, or a new one."""
        held = self._part.link
        if held is not None and held.server is server and not held.is_taken and held.loan.is_valid:
            return held
        link = Link(server, server.engine.pool.connect(), self._part)
        self._opened.append(link)
        return link

    def give_back(self, chosen: Link | None) -> None:
        """Give back what was opened and is not needed."""
        for link in self._opened:
            if link is not chosen:
                link.give_back()
        self._opened.clear()

    def drop(self, server: SlaveServer) -> None:
        """Close the idle connections."""
        held = self._part.link
        if held is not None and held.server is server:
            held.discard()
        server.engine.dispose()

    @contextmanager
    def borrowed(self, server: SlaveServer | None) -> Iterator[Raw]:
        """Lend a connection for questions of ours."""
        loan = (self._master if server is None else server.engine).pool.connect()
        loan.info[OUR_OWN] = True
        try:
            yield loan.dbapi_connection
        finally:
            loan.close()


def count_reads(engine: SlaveEngine) -> None:
    """Remember for each session that it has read rows from the slave."""

    @event.listens_for(engine, "after_cursor_execute")
    def read(connection: Any, cursor: Any, *_: Any) -> None:
        link = link_of(connection)
        if link is not None and link.part is not None and cursor.description is not None:
            link.part.has_read_rows()


def link_of(connection: Any) -> Link | None:
    """Return the link that a session has as its connection."""
    if connection is None or connection.closed or connection.invalidated:
        return None
    reference = connection.info.get(LINK)
    return None if reference is None else reference()
