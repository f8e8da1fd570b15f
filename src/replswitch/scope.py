"""What one request, or one job, knows: the marker it came with, its own writes, the slave chosen for it."""

from __future__ import annotations

import logging
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from replswitch.place import application_place

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.local import Local
    from replswitch.marker import Marker
    from replswitch.policy import Decision

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
        written_at: when the latest commit was recorded, in seconds since the epoch; None without one.
        marker: what the visitor must see, as his request told; None without a marker that holds.
        in_doubt: a statement on the master may have written, and its binding can find out before the response.
        is_safe: the request's method promises to write nothing; False outside requests.
        decision: what was decided for the request as a whole; None outside a request.
        answered: the headers of the response are out, and no marker can be added any more.
        pins: the databases that the master must serve, with the reason. Replaced, never changed.
        ended: the request is over. A thread or task that outlives it still sees what the scope knew.
    """

    master_only = False
    recorded = False
    unrecorded = False
    in_doubt = False
    is_safe = False
    written_at: float | None = None
    marker: Marker | None = None
    decision: Decision | None = None
    answered = False
    ended = False
    pins: Mapping[Hashable, str] = MappingProxyType({})

    _late = False
    _decisions: tuple[Decision, ...] = ()
    _slaves: dict[Hashable, Any] | None = None
    _failed: frozenset[tuple[Hashable, Hashable]] = frozenset()
    _held: dict[Hashable, Local] | None = None

    def record(self, database: Hashable, reason: str) -> None:
        """A write of ``database`` was committed on the master, which serves this database from now on."""
        self.written_at = time.time()
        self.pin(database, reason)
        if self.answered and not self._late:
            self._late = True
            logger.warning(
                "A write was committed after the response's headers were sent, at %s. The visitor's next request "
                "does not know of it and may miss it. Commit before the first piece of the body is produced.",
                application_place(),
            )

    def pin(self, database: Hashable, reason: str) -> None:
        """Let the master serve ``database`` until the scope ends. The first reason given is kept."""
        with _changing:
            if database not in self.pins:
                self.pins = {**self.pins, database: reason}

    def pinned(self, database: Hashable) -> str | None:
        """Say why the master must serve ``database``; None when it need not."""
        return self.pins.get(database)

    def slave(self, database: Hashable) -> Any:
        """Return the slave that serves the reads of ``database`` in this scope, None before one is chosen.

        What stands for a server is the binding's own.
        """
        return None if self._slaves is None else self._slaves.get(database)

    def choose_slave(self, database: Hashable, server: Hashable) -> Any:
        """Let ``server`` serve the reads of ``database`` from now on, and return it (S6).

        Where another thread of the scope was faster, its choice is returned.
        """
        with _changing:
            if self._slaves is None:
                self._slaves = {}
            return self._slaves.setdefault(database, server)

    def avoid_slave(self, database: Hashable, server: Hashable) -> None:
        """Let ``server``, which has failed, serve no more reads of ``database``."""
        with _changing:
            self._failed = self._failed | {(database, server)}
            if self._slaves is not None and self._slaves.get(database) is server:
                del self._slaves[database]

    def avoids(self, database: Hashable, server: Hashable) -> bool:
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
        if self._held is None:
            self._held = {}
        self._held[holder] = local

    def held_by(self, holder: Hashable) -> Local | None:
        """Return what ``holder`` holds for this scope."""
        return None if self._held is None else self._held.get(holder)

    def end(self) -> None:
        """End the scope: what is held for it is let go."""
        self.ended = True
        held, self._held = self._held, None
        for local in (held or {}).values():
            local.leave(self)
