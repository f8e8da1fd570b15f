"""What one request, or one job, knows: the marker it came with, its own writes, the slave chosen for it."""

from __future__ import annotations

import logging
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from replswitch.marker import Marker
from replswitch.place import application_place

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from replswitch.local import Local
    from replswitch.policy import Decision
    from replswitch.positions import Position

logger = logging.getLogger(__name__)

#: How many decisions a scope remembers: the first ones. They go into a response header.
DECISIONS_KEPT: Final = 20


# What changes seldom needs no lock of its own: threads may share a scope.
_changing: Final = threading.Lock()


class Scope:
    """What one request knows. Outside a request, the outermost ``use_*()`` has one until it is taken back.

    Defaults stand on the class and are written on first use: every ``with db.use_slave():`` outside a request
    makes a scope, and few of them have anything to write down.

    Attributes:
        master_only: everything in this scope runs on the master, whatever the code asks for.
        recorded: a database that records its commits was used.
        unrecorded: a database whose commits nobody records was asked for its state.
        wrote: what was committed on the master in this scope; None without a commit.
        marker: what the visitor must see, as his request told; None without a marker that holds.
        recently_marked: the marker is so young that it would hold even without positions.
        must_see: how far the slaves of each database must have come to serve this scope, by the database's name in
            markers: what the marker asks for, and what was written since. Replaced, never changed.
        is_safe: the request's method promises to write nothing; False outside requests.
        decision: what was decided for the request as a whole; None outside a request.
        answered: the headers of the response are out, and no marker can be added any more.
        pins: the databases that the master must serve, with the reason. Replaced, never changed; and replaced also
            when anything else changes that decides which server may serve a read.
        has_waited: a read has waited for a slave already (the option ``wait``).
        ended: the request is over. A thread or task that outlives it still sees what the scope knew.
    """

    master_only = False
    recorded = False
    unrecorded = False
    is_safe = False
    wrote: Marker | None = None
    marker: Marker | None = None
    recently_marked = False
    must_see: Mapping[str, Position] = MappingProxyType({})
    has_waited = False
    decision: Decision | None = None
    answered = False
    ended = False
    pins: Mapping[Hashable, str] = MappingProxyType({})

    _late = False
    _decisions: tuple[Decision, ...] = ()
    _slaves: dict[Hashable, Any] | None = None
    _failed: frozenset[tuple[Hashable, object]] = frozenset()
    _held: dict[Hashable, Local] | None = None
    _doubts: Mapping[Hashable, Callable[[Scope], None]] = MappingProxyType({})
    _settling: threading.Lock | None = None

    def come_with(self, marker: Marker, max_age: float) -> None:
        """Begin with a marker.

        Args:
            marker: what must be seen.
            max_age: seconds that a marker without positions holds.
        """
        self.marker = marker
        self.must_see = marker.positions
        self.master_only = marker.written_at is not None
        self.recently_marked = marker.placed_at is not None and time.time() - marker.placed_at <= max_age

    def all_written(self) -> Marker | None:
        """Return what whoever goes on from here must see: the marker, and what was written since. None: nothing."""
        self.settle()
        if self.marker is None or self.wrote is None:
            return self.wrote or self.marker
        return self.wrote.merge(self.marker)

    def record(self, database: Hashable, name: str, position: Position | None) -> None:
        """A write was committed on the master.

        Args:
            database: which has been written to.
            name: what it is called in markers.
            position: from which on a slave has it. Where nobody knows, the master serves this database from now on.
        """
        now = time.time()
        with _changing:
            wrote = Marker(now) if position is None else Marker(positions={name: position}, placed_at=now)
            self.wrote = wrote if self.wrote is None else self.wrote.merge(wrote)
            if position is None:
                self.pins = {database: "own-write", **self.pins}
            else:
                self.must_see = Marker(positions=self.must_see).merge(wrote).positions
                self.pins = dict(self.pins)
        if self.answered and not self._late:
            self._late = True
            logger.warning(
                "A write was committed after the response's headers were sent, at %s. The visitor's next request "
                "does not know of it and may miss it. Commit before the first piece of the body is produced.",
                application_place(),
            )

    def take_over(self, inner: Scope) -> None:
        """Count what was written in a scope within this one as written in this one."""
        inner.settle()
        with _changing:
            self.recorded, self.unrecorded = self.recorded or inner.recorded, self.unrecorded or inner.unrecorded
            if inner.wrote is not None:
                self.wrote = inner.wrote if self.wrote is None else self.wrote.merge(inner.wrote)
                self.must_see = Marker(positions=self.must_see).merge(inner.wrote).positions
                own = {database: why for database, why in inner.pins.items() if why in {"own-write", "moved-write"}}
                self.pins = {**own, **self.pins}

    def has_written(self, name: str) -> bool:
        """Say whether a write with a position was recorded of a database, by its name in markers."""
        return self.wrote is not None and name in self.wrote.positions

    def doubt(self, link: Hashable, settle: Callable[[Scope], None]) -> None:
        """A statement on the master may have written; ``settle`` finds out, and records it in the scope it is given."""
        with _changing:
            if self._settling is None:
                self._settling = threading.Lock()
            self._doubts = {**self._doubts, link: settle}
            self.pins = dict(self.pins)

    def doubted(self, link: Hashable) -> Callable[[Scope], None] | None:
        """Return what will find out about the statements on ``link``; None where they are in no doubt."""
        return self._doubts.get(link)

    @property
    def is_in_doubt(self) -> bool:
        """Whether a statement may have written, and nobody has found out yet."""
        return bool(self._doubts)

    def settle(self) -> None:
        """Find out whether the statements wrote that may have. A thread that comes meanwhile waits for the answers."""
        while self._doubts and self._settling is not None:
            with self._settling:
                for link, settle in self._doubts.items():
                    settle(self)
                    with _changing:  # unless it is in doubt again
                        self._doubts = {k: v for k, v in self._doubts.items() if (k, v) != (link, settle)}

    def pin(self, database: Hashable, reason: str, *, again: bool = False) -> None:
        """Let the master serve ``database`` until the scope ends. The first reason given is kept, unless ``again``."""
        with _changing:
            if again or database not in self.pins:
                self.pins = {**self.pins, database: reason}

    def pinned(self, database: Hashable) -> str | None:
        """Say why the master must serve ``database``; None when it need not."""
        return self.pins.get(database)

    def slave(self, database: Hashable) -> Any:
        """Return the slave that serves the reads of ``database`` in this scope, None before one is chosen.

        What stands for a server is the binding's own.
        """
        return None if self._slaves is None else self._slaves.get(database)

    def choose_slave(self, database: Hashable, server: object) -> Any:
        """Let ``server`` serve the reads of ``database`` from now on, and return it (S6).

        Where another thread of the scope was faster, its choice is returned.
        """
        with _changing:
            if self._slaves is None:
                self._slaves = {}
            return self._slaves.setdefault(database, server)

    def avoid_slave(self, database: Hashable, server: object) -> None:
        """Let ``server``, which has failed, serve no more reads of ``database``."""
        with _changing:
            self._failed = self._failed | {(database, server)}
            if self._slaves is not None and self._slaves.get(database) is server:
                del self._slaves[database]

    @property
    def avoids_any(self) -> bool:
        """Whether a server has failed in this scope."""
        return bool(self._failed)

    def avoids(self, database: Hashable, server: object) -> bool:
        """Say whether ``server`` has failed in this scope."""
        return (database, server) in self._failed

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Which server was chosen and why, in the order of the choices; the same one twice running is told once."""
        return self._decisions

    def note(self, decision: Decision) -> None:
        """Write a decision down."""
        if decision not in self._decisions[-1:] and len(self._decisions) < DECISIONS_KEPT:
            self._decisions = (*self._decisions, decision)

    @property
    def is_request(self) -> bool:
        """Whether it is a request's, and not a block's outside any request."""
        return self.decision is not None

    def hold(self, holder: Hashable, local: Local) -> None:
        """Keep what ``holder``, one thread's or task's part in a database, holds for this scope."""
        with _changing:  # another thread may end the scope meanwhile
            self._held = {**(self._held or {}), holder: local}

    def held_by(self, holder: Hashable) -> Local | None:
        """Return what ``holder`` holds for this scope."""
        return None if self._held is None else self._held.get(holder)

    def end(self) -> None:
        """End the scope: what is held for it is let go."""
        self.ended = True
        if self.is_request and self._doubts:
            # It failed before its response, so nobody has asked: links are not kept for that, however long the server
            # keeps the request. Whoever outlives it is on the safe side.
            self._doubts, self.master_only = {}, True
        held, self._held = self._held, None
        for local in (held or {}).values():
            local.leave(self)
