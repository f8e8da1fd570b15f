"""Slaves behind a host name with several addresses: each address is a slave of its own (F7)."""

from __future__ import annotations

import logging
import socket
import weakref
from contextlib import suppress
from math import inf
from os import getpid
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from replswitch.engine.events import Incident
from replswitch.engine.rotation import Rotation
from replswitch.engine.servers import Servers
from replswitch.engine.weights import Weighted
from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Server
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")

#: Seconds for which the answer to a lookup is used.
EVERY: Final = 30

#: Seconds after which a lookup that has failed is tried again.
RETRY: Final = 5

#: Seconds that a read waits for the first answer at most.
FIRST: Final = 1


def addresses_of(host: str, port: int) -> list[str]:
    """Look a host name up. If it has both IPv4 and IPv6 addresses, return only the kind that the system prefers.

    Raises:
        OSError: the name cannot be looked up, or has no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise OSError("it has no address")
    return sorted({str(address[0]) for family, *_, address in found if family == found[0][0]})


class _Lookup(NamedTuple):
    """A lookup of a host name, which runs in a thread.

    Attributes:
        process: the id of the process that has begun the lookup. In a forked child, the thread of the lookup does not
            run.
        until: when a read stops waiting for the answer, by `time.monotonic`.
        done: set when the lookup has ended.
    """

    process: int
    until: float
    done: Event

    def wait(self, wait: Callable[[Event, float], object]) -> None:
        """Wait for the answer with the function ``wait``, but not after `until`."""
        if (seconds := self.until - monotonic()) > 0:
            wait(self.done, seconds)


class Name:
    """A host name in the settings of the slaves, with a server for each of its addresses.

    Args:
        host: the host name.
        port: the port of each address.
        make: makes the server for an address. Its arguments are the address and the name of the server.

    Attributes:
        servers: the servers, by their addresses.
        error: the error of the last lookup; None if it has succeeded.
        incident: reports lookups that fail; None before a rotation watches the name.
        due: when the next lookup is due, by `time.monotonic`.
    """

    def __init__(self, host: str, port: int, make: Callable[[str, str], Server]) -> None:
        self.host = host
        self.port = port
        self._make = make
        self.servers: dict[str, Server] = {}
        self.error: Exception | None = OSError(f"there is no answer within {FIRST} s")
        self.incident: Incident | None = None
        self.due = -inf
        self._lookup: _Lookup | None = None
        self._lock = ProcessLock()

    def begin(self, when_found: Callable[[], None]) -> _Lookup | None:
        """Begin a lookup if the last answer is too old. Return a running lookup, if there is one.

        The first read of a process waits for the lookup, and so does the first read after a pause, because the last
        answer may then be very old. No other read waits.

        Args:
            when_found: called after the lookup if it has succeeded.
        """
        if monotonic() < self.due:
            return None
        with self._lock:
            lookup, now = self._lookup, monotonic()
            if lookup is not None and lookup.process == getpid():
                return lookup
            if now < self.due:  # another thread was faster
                return None
            waits = now > self.due + EVERY
            lookup = self._lookup = _Lookup(getpid(), now + FIRST if waits else -inf, Event())
            try:
                Thread(target=self._run, args=(lookup, when_found), name="replswitch-resolve", daemon=True).start()
            except RuntimeError as error:  # there are too many threads, or the program ends
                self._end(error, RETRY)
                return None
        return lookup

    def _run(self, lookup: _Lookup, when_found: Callable[[], None]) -> None:
        try:
            found, known = addresses_of(self.host, self.port), self.servers
            self.servers = {each: known.get(each) or self._make(each, self._name(each)) for each in found}
            self._end(None, EVERY)
            when_found()
        except Exception as error:  # noqa: BLE001 - the last answer stays in use after any error
            self._end(error.with_traceback(None), RETRY)
            if self.incident is not None:
                text = "The host name %s cannot be looked up, so replswitch uses the addresses that it knows: %s"
                self.incident.happens(self.host, text, self.host, error)
        else:
            if self.incident is not None:
                self.incident.ends(self.host, "The host name %s can be looked up again.", self.host)
        finally:
            lookup.done.set()

    def _end(self, error: Exception | None, seconds: float) -> None:
        # In this order: a thread that finds no running lookup must see when the next one is due.
        self.error, self.due, self._lookup = error, monotonic() + seconds, None

    def _name(self, address: str) -> str:
        at = f"[{address}]" if ":" in address else address
        return f"{self.host} ({at}:{self.port})"


class ResolvingServers(Servers):
    """The servers of a database some of whose slaves are behind a host name. A lookup replaces `slaves` as a whole.

    Args:
        master: the master.
        entries: the slaves; those behind a name as a `Name`.
        master_read_only: the master over read-only links.
        close: closes the idle connections to a server whose address is gone. It runs in the thread of a lookup.
        wait: waits until an event is set, for a number of seconds at most.

    Attributes:
        names: the host names in the settings, each with its servers.
        due: when the next lookup is due, by `time.monotonic`. It may be too early, but not too late.
        left: weak references to the servers whose addresses are gone. Connections to them may still be open.
    """

    __slots__ = ("_close", "_entries", "_lock", "_rotations", "_wait", "due", "left", "names")

    def __init__(
        self,
        master: Server,
        entries: Sequence[Server | Name],
        master_read_only: Server,
        close: Callable[[Server], None],
        wait: Callable[[Event, float], object] = Event.wait,
    ) -> None:
        fixed = tuple(entry for entry in entries if not isinstance(entry, Name))
        super().__init__(master, fixed, master_read_only, has_slaves=True)
        self._close = close
        self._wait = wait
        self._entries = entries
        self.names = [entry for entry in entries if isinstance(entry, Name)]
        self.due = -inf
        self.left: tuple[weakref.ref[Server], ...] = ()
        self._rotations: weakref.WeakSet[ResolvingRotation] = weakref.WeakSet()
        self._lock = ProcessLock()

    def look_up(self) -> None:
        """Look up the names whose last answer is too old. Only the first read waits for the answers."""
        lookups = [name.begin(self._renew) for name in self.names]
        for lookup in lookups:
            if lookup is not None:
                lookup.wait(self._wait)
        self.due = min(name.due for name in self.names)

    def unresolved(self) -> list[tuple[str, Exception]]:
        """Return the names without a known address, with the error of the lookup."""
        return [(f"{each.host}:{each.port}", each.error) for each in self.names if each.error and not each.servers]

    def watch(self, rotation: ResolvingRotation, database: str) -> None:
        """From now on, report gone addresses to a rotation, and failed lookups as events of ``database``."""
        with self._lock:
            self._rotations.add(rotation)
        for name in self.names:
            name.incident = Incident("resolve-failed", "resolve-back", database)

    def _renew(self) -> None:
        """Replace `slaves` by the servers at the addresses that are known now."""
        with self._lock:
            rotations = list(self._rotations)
            for rotation in rotations:
                rotation.forget_ended_scopes()
            known = self.slaves
            now: list[Server] = []
            for entry in self._entries:
                now.extend(entry.servers.values() if isinstance(entry, Name) else [entry])
            if (found := tuple(now)) == known:
                return
            gone = [server for server in known if server not in found]
            self.slaves = found
            self.left = (*(each for each in self.left if each() is not None), *map(weakref.ref, gone))
        for server in found:
            if server not in known:
                logger.info("The slave %s was added, because its host name now has this address.", server.name)
        for server in gone:
            logger.info("The slave %s was removed, because its host name no longer has this address.", server.name)
            for rotation in rotations:
                rotation.forget(server)
            with suppress(Exception):  # the next server must leave, too
                self._close(server)


class ResolvingRotation(Rotation):
    """The slaves of a database, some of which are behind a host name. The arguments are those of `Rotation`."""

    def __init__(self, name: str, key: object, servers: ResolvingServers, options: DatabaseOptions) -> None:
        super().__init__(name, key, servers, options)
        self._servers = servers
        # The scopes that may have chosen a slave, by their ids. The references have no callback, for speed.
        self._scopes: dict[int, weakref.ref[Scope]] = {}
        servers.watch(self, name)

    def first(self, scope: Scope, port: Port) -> Server | None:
        """Return the slave that a scope should try first; see `Rotation.first`.

        Before that, look the host names up if the last answer is too old. If the address of the chosen slave is gone,
        the scope chooses another slave.
        """
        servers = self._servers
        if monotonic() >= servers.due:
            servers.look_up()
        if (slaves := servers.slaves) is not self._weighted.servers:
            self._weighted = Weighted(slaves)
        for reference in servers.left:
            if (server := reference()) is not None:
                port.retire(server)
        chosen = scope.slaves.get(self._key)
        if chosen is not None and chosen not in slaves:
            scope.avoid_slave(self._key, chosen)
        self._scopes[id(scope)] = weakref.ref(scope)
        return super().first(scope, port)

    def rest(self, server: Server, error: BaseException) -> None:
        """Take a server out of rotation, unless its address is gone."""
        if server in self._servers.slaves or server is self._servers.master_read_only:
            super().rest(server, error)

    def forget_ended_scopes(self) -> None:
        """Remove the references to scopes that have ended."""
        for number, reference in list(self._scopes.items()):
            if reference() is None:
                self._scopes.pop(number, None)

    def forget(self, server: Server) -> None:
        """Forget a server whose address is gone. Running scopes choose another slave for their next read."""
        self._health.answered(server)
        self._too_far_behind -= {server}
        self._unmeasured.discard(server)
        if self._lag is not None:
            self._lag.forget(server)
        for reference in list(self._scopes.values()):
            scope = reference()
            if scope is not None and scope.slaves.get(self._key) is server:
                scope.avoid_slave(self._key, server)
