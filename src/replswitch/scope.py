"""What one request, or one job, knows: the marker it came with, its own writes, the slave chosen for it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from replswitch.place import application_place

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.marker import Marker
    from replswitch.policy import Decision
    from replswitch.servers import Server

logger = logging.getLogger(__name__)


class Holder(Protocol):
    """Whoever keeps something for a scope, and lets it go when the scope ends."""

    def leave(self, scope: Scope) -> None:
        """The scope has ended: let go what was kept for it."""


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
        decision: what was decided for the request as a whole; None outside a request.
        answered: the headers of the response are out, and no marker can be added any more.
        ended: the request is over. A thread or task that outlives it still sees what the scope knew.
    """

    master_only = False
    recorded = False
    unrecorded = False
    written_at: float | None = None
    marker: Marker | None = None
    decision: Decision | None = None
    answered = False
    ended = False

    _late = False
    _decisions: tuple[Decision, ...] = ()
    _pins: dict[Hashable, str] | None = None
    _slaves: dict[Hashable, Server] | None = None
    _holders: list[Holder] | None = None

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
        if self._pins is None:
            self._pins = {}
        self._pins.setdefault(database, reason)

    def pinned(self, database: Hashable) -> str | None:
        """Say why the master must serve ``database``; None when it need not."""
        return None if self._pins is None else self._pins.get(database)

    def slave(self, database: Hashable) -> Server | None:
        """Return the slave that serves the reads of ``database`` in this scope, None before one is chosen."""
        return None if self._slaves is None else self._slaves.get(database)

    def choose_slave(self, database: Hashable, server: Server) -> None:
        """Let ``server`` serve the reads of ``database`` from now on."""
        if self._slaves is None:
            self._slaves = {}
        self._slaves[database] = server

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Which server was chosen and why, in the order of the choices; the same one twice running is told once."""
        return self._decisions

    def note(self, decision: Decision) -> None:
        """Write a decision down."""
        if decision not in self._decisions[-1:]:
            self._decisions = (*self._decisions, decision)

    def hold(self, holder: Holder) -> None:
        """Tell ``holder`` when the scope ends."""
        if self._holders is None:
            self._holders = []
        self._holders.append(holder)

    def end(self) -> None:
        """End the scope: whoever holds something for it lets go."""
        self.ended = True
        holders, self._holders = self._holders, None
        for holder in holders or ():
            holder.leave(self)
