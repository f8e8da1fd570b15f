"""Keep track of whether the master of one database is available, for all threads of one process (F5)."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from replswitch.drivers import Fault
from replswitch.engine.events import Incident

if TYPE_CHECKING:
    from replswitch.engine.servers import Link, Servers


class MasterLoss(Incident):
    """A period in which the master cannot be reached or is read-only. Its start and its end are logged.

    What ends the loss depends on the fault. An unreachable master is back as soon as a new connection opens. A
    read-only master accepts connections, so only a successful write ends the loss. A master at its connection limit
    accepts a connection now and then, and its open connections keep working, so the loss ends when the master has not
    refused a connection for `downtime` seconds.

    Args:
        database: the database's display name.
        servers: the servers of the database.
        downtime: the option ``downtime``, in seconds.
    """

    def __init__(self, database: str, servers: Servers, downtime: float) -> None:
        super().__init__("master-lost", "master-back", database)
        self._server = servers.master
        self._read_only = servers.master_read_only
        self._downtime = downtime
        self._fault = Fault.LOST

    def report(self, error: BaseException, fault: Fault) -> None:
        """Count an attempt that failed because the master is not available. Log the first one."""
        self._fault = fault
        self.happens(self._server.name, "The master %s is not available: %s", self._server.name, error)

    def not_reached(self, fault: Fault) -> None:
        """Record that no new connection to the master could be opened."""
        if fault is not Fault.FULL:  # the open connections to a master at its connection limit keep working
            self._server.lost_at = monotonic()

    def is_unreachable(self) -> bool:
        """Return whether the latest new connection to the master has failed, within the last `downtime` seconds.

        A query that can be left out is not sent to such a master, because it would cost one more time-out.
        """
        failed_at = max(self._server.lost_at, self._read_only.lost_at)
        return self.lasts and monotonic() - failed_at < self._downtime

    def refused(self) -> None:
        """Record that the master has just refused a write. Answers about earlier writes then do not end the loss."""
        self.latest = monotonic()

    def opened(self, link: Link) -> None:
        """End the loss if an open link shows that the master is back.

        The link of an SQLAlchemy session has no connection at first. Such a link shows nothing.
        """
        if self.lasts and link.raw is not None:
            self._end_after({Fault.READ_ONLY: inf, Fault.FULL: self._downtime}.get(self._fault, 0), link.opened_at)

    def wrote(self, *, certain: bool) -> None:
        """End the loss if a write shows that the master is back. Call this method only while `lasts` is true.

        Args:
            certain: the server has confirmed the write. Otherwise, the statement may have been a read.
        """
        self._end_after(0 if certain and self._fault is Fault.READ_ONLY else self._downtime, monotonic())

    def _end_after(self, seconds: float, moment: float) -> None:
        if moment > self.latest + seconds:
            self.ends(self._server.name, "The master %s is available again.", self._server.name)
