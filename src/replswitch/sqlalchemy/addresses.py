"""Slaves behind a host name: each address of the host has a pool of its own, and shares the rest of the engine (F7)."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_only, greenlet_spawn

from replswitch.decision import SLAVE
from replswitch.drivers.urls import option
from replswitch.engine.resolving import Name
from replswitch.engine.servers import Server
from replswitch.sqlalchemy.facts import RESOLVE, when_disposed
from replswitch.sqlalchemy.pooled import AT, SlaveEngine

if TYPE_CHECKING:
    from threading import Event

    from sqlalchemy import Engine

    from replswitch.drivers import Raw

# Seconds between two checks of whether a lookup has ended, in a task of asyncio.
_POLL_EVERY: Final = 0.005

# The tasks that close connections. The event loop itself keeps only weak references to tasks.
_closing: Final[set[asyncio.Task[None]]] = set()


class AddressEngine(SlaveEngine):
    """The engine that sessions get for one address of a slave's host.

    It has a pool of its own, with the settings of the pool of the application's engine. Dialect, events and execution
    options are those of the application's engine.

    Args:
        proxied: the application's engine.
        server: the server at the address.
        address: the address.
    """

    pool: Any = None  # of this engine; otherwise, SQLAlchemy returns the pool of the other engine

    def __init__(self, proxied: Engine, server: Server, address: str) -> None:
        super().__init__(proxied, {})
        self._with_pool = self
        self._at = server, address
        self.renew_pool()

    def renew_pool(self) -> None:
        """Begin with a new pool. The connections of the former pool that are in use stay open until they return."""
        of_application: Any = self._proxied.pool
        pool: Any = of_application.recreate()
        connect, at = pool._invoke_creator, self._at

        def connect_to_address(entry: Any) -> Raw:
            entry.info[AT] = at  # for `replswitch.sqlalchemy.opening`
            return connect(entry)

        pool._creator = connect_to_address
        pool.dispatch = of_application.dispatch  # also for listeners that are registered later
        self.pool = pool

    def close_idle(self) -> None:
        """Close the idle connections. With an asyncio driver, a task closes them, in the event loop of the caller."""
        pool = self.pool
        if not isinstance(pool, QueuePool) or not pool.checkedin():
            return
        if not self.dialect.is_async:
            pool.dispose()
            return
        with suppress(RuntimeError):  # a thread of a lookup has no event loop
            task = asyncio.get_running_loop().create_task(_dispose(pool))
            _closing.add(task)
            task.add_done_callback(_closing.discard)


async def _dispose(pool: QueuePool) -> None:
    await greenlet_spawn(pool.dispose)


def resolves(engine: Engine, where: str) -> bool:
    """Return whether each address of an engine's host is a slave (``resolve=true`` in the engine's URL).

    Args:
        engine: the engine.
        where: the engine's name in messages, such as ``slaves[0]``.

    Raises:
        ConfigurationError: the option is neither true nor false.
    """
    return bool(option(RESOLVE, str(engine.url.query.get(RESOLVE, "false")), where))


def behind_name(engine: Engine, host: str, port: int, weight: float) -> Name:
    """Return the slaves at the addresses of an engine's host, each with this weight."""
    made: tuple[weakref.ref[Server], ...] = ()  # also those whose addresses are gone: they may have idle connections

    def make(address: str, name: str) -> Server:
        nonlocal made
        server = Server(name, SLAVE, weight=weight)
        server.source = AddressEngine(engine, server, address)
        made = (*(each for each in made if each() is not None), weakref.ref(server))
        return server

    def dispose() -> None:
        for reference in made:
            if (server := reference()) is not None:
                server.source.pool.dispose()  # in a forked child, it leaves the connections of the parent open
                server.source.renew_pool()

    when_disposed(engine, dispose)
    return Name(host, port, make)


def close_idle(server: Server) -> None:
    """Close the idle connections to a server whose address is gone, if it has a pool of its own."""
    server.source.close_idle()


def wait_in_task(event: Event, seconds: float) -> None:
    """Wait until an event is set, for ``seconds`` at most. In a task of asyncio, do not block the event loop.

    In a task, but outside a call of a session, return at once, because such code cannot wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        event.wait(seconds)
        return
    with suppress(MissingGreenlet):
        await_only(_wait(event, seconds))


async def _wait(event: Event, seconds: float) -> None:
    until = monotonic() + seconds
    while not event.is_set() and monotonic() < until:
        await asyncio.sleep(_POLL_EVERY)
