"""Whether the master of one database serves, as far as one process knows (F5). Shared by all threads."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from replswitch.drivers import Fault
from replswitch.engine.events import Incident

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.engine.servers import Link, Server


class MasterLoss(Incident):
    """The time in which the master cannot be reached or is read-only: one log line when it begins, one when it ends.

    What ends it depends on the fault. A master that could not be reached serves again as soon as a new connection is
    open. A read-only one accepts connections, so a write ends it. A full one accepts a connection now and then, and the
    open ones serve on, so it serves again if it has not been found full for `downtime`.

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

    def report(self, error: BaseException, driver: Driver) -> None:
        """Count, and log if it is new, that the master does not serve."""
        self._fault = driver.classify(error)
        self.happens(self._server.name, "The master %s does not serve: %s", self._server.name, error)

    def refused(self) -> None:
        """Note that it lasts: the look for earlier writes that follows is no sign of the opposite."""
        self.latest = monotonic()

    def opened(self, link: Link) -> None:
        """End it if an open link shows that. A session of SQLAlchemy has one without a connection at first."""
        if self.lasts and link.raw is not None:
            self._end_after({Fault.READ_ONLY: inf, Fault.FULL: self._downtime}.get(self._fault, 0), link.opened_at)

    def wrote(self, *, certain: bool) -> None:
        """End it if a write shows that: call it if `lasts`.

        Args:
            certain: the server has said that it has written. Else a read may count as a write.
        """
        self._end_after(0 if certain and self._fault is Fault.READ_ONLY else self._downtime, monotonic())

    def _end_after(self, seconds: float, moment: float) -> None:
        if moment > self.latest + seconds:
            self.ends(self._server.name, "The master %s serves again.", self._server.name)
