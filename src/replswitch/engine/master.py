"""Keeps track of whether the master of one database is available, as seen by one process (F5). Threads share it."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from replswitch.drivers import Fault
from replswitch.engine.events import Incident

if TYPE_CHECKING:
    from replswitch.engine.servers import Link, Server


class MasterLoss(Incident):
    """A period in which the master cannot be reached or is read-only: one log line at its start, one at its end.

    What ends the loss depends on the fault. An unreachable master is back as soon as a new connection opens. A
    read-only master accepts connections, so only a successful write ends the loss. A master at its connection limit
    accepts a connection now and then, and its open connections keep working, so the loss ends when the master has not
    refused a connection for `downtime` seconds.

    Args:
        database: the database's name in markers.
        server: the master.
        downtime: seconds.
    """

    def __init__(self, database: str, server: Server, downtime: float) -> None:
        super().__init__("master-lost", "master-back", database)
        self._server = server
        self._downtime = downtime
        self._fault = Fault.LOST

    def report(self, error: BaseException, fault: Fault) -> None:
        """Count that the master is not available, and log it if that is new."""
        self._fault = fault
        self.happens(self._server.name, "The master %s is not available: %s", self._server.name, error)

    def refused(self) -> None:
        """Record that the loss continues, so that an answer of the master about earlier writes does not end it."""
        self.latest = monotonic()

    def opened(self, link: Link) -> None:
        """End the loss if the open link shows that. In SQLAlchemy, a session's link has no connection at first."""
        if self.lasts and link.raw is not None:
            self._end_after({Fault.READ_ONLY: inf, Fault.FULL: self._downtime}.get(self._fault, 0), link.opened_at)

    def wrote(self, *, certain: bool) -> None:
        """End the loss if a write shows that. Call this method only while `lasts` is true.

        Args:
            certain: the server has confirmed the write. Otherwise a read may have counted as a write.
        """
        self._end_after(0 if certain and self._fault is Fault.READ_ONLY else self._downtime, monotonic())

    def _end_after(self, seconds: float, moment: float) -> None:
        if moment > self.latest + seconds:
            self.ends(self._server.name, "The master %s is available again.", self._server.name)
