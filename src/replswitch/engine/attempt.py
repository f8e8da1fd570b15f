"""What is known of a running transaction, and of a statement that has failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.failure import LOST, UNSENT, OnMaster, Role

if TYPE_CHECKING:
    from replswitch.drivers import Fault
    from replswitch.engine.failure import Situation
    from replswitch.engine.servers import Link, Server


class Block:
    """A transaction of one database. It belongs to the database, not to a link: links join it (S5).

    Args:
        explicit: the application said where it begins; without autocommit any statement does.

    Attributes:
        links: those that have joined, in that order.
        has_run: a statement has run in it.
        has_read: rows were read from a slave, which may be stale for what is written next (S8).
        without_master: the error with which the master was lost before anything ran. The transaction goes on without
            it, over links that refuse writes (F3).
        lost: the error with which the transaction ended before its time; only a rollback is left then.
        is_recorded: what it commits makes a marker; False while only unrecorded statements ran on the master.
    """

    def __init__(self, *, explicit: bool = True) -> None:
        self.explicit = explicit
        self.links: list[Link] = []
        self.has_run = False
        self.has_read = False
        self.without_master: BaseException | None = None
        self.lost: Exception | None = None
        self.is_recorded = False

    @property
    def on_master(self) -> bool:
        """Whether the master has joined, and so serves the rest."""
        return any(link.server.state == MASTER for link in self.links)

    @property
    def slave(self) -> Link | None:
        """The link to a slave that has joined."""
        return next((link for link in self.links if link.server.state == SLAVE), None)

    def __contains__(self, link: object) -> bool:
        return link in self.links


class Attempt:
    """What has become of one statement so far.

    Args:
        single: it is one statement. Of several (``executemany``) some may have run before the failure.
        repeatable: the binding can run it again. What the application runs on a connection of its own, it cannot.

    Attributes:
        on_master: what the master did with it.
        error: with which the master was lost, so that the statement goes on without it; None while it may serve.
        began_at: a number that grows from statement to statement, where the binding counts them.
    """

    def __init__(self, *, single: bool = True, repeatable: bool = True, began_at: int = 0) -> None:
        self._single = single and repeatable
        self.repeatable = repeatable
        self._failures: Counter[Role] = Counter()
        self._lost: Counter[Server] = Counter()
        self.on_master = OnMaster.UNTRIED
        self.error: BaseException | None = None
        self.began_at = began_at

    def count(self, role: Role, server: Server, fault: Fault) -> None:
        """Count a failure, by what the link was there for."""
        self._failures[role] += 1
        if role is Role.SLAVE:
            self._lost[server] += fault in LOST

    def lose_master(self, situation: Situation, error: BaseException) -> None:
        """Go on without the master, which has failed the statement."""
        if self.error is None:
            not_run = (
                situation.role is Role.MASTER_READ_ONLY
                or situation.on_master is OnMaster.NOT_RUN
                or (self._single and situation.fault in UNSENT)
            )
            self.on_master = OnMaster.NOT_RUN if not_run else OnMaster.MAY_HAVE_RUN
            self.error = error.with_traceback(None)  # whose frames hold the attempt: links would wait in that circle

    @property
    def is_first(self) -> bool:
        """Whether the statement is one, and has failed on the master once at most."""
        return self._single and self._failures[Role.MASTER] == 1

    def lost_again(self, server: Server) -> bool:
        """Say whether a server has lost the connection for a second time."""
        return self._lost[server] > 1

    def is_exhausted(self, role: Role, slaves: int) -> bool:
        """Say whether the statement is at fault, and not the servers.

        Args:
            role: what the link was there for that has just failed it.
            slaves: how many there are.
        """
        lost_twice = sum(times > 1 for times in self._lost.values())
        if role is Role.MASTER:
            return lost_twice > 0
        # Each slave, and the server that has the master's name, may fail it twice.
        return not self.repeatable or lost_twice > 2 or self._failures[Role.SLAVE] > 2 * (slaves + 1)
