"""What is known of a running transaction, and of a statement that has failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER, SLAVE
from replswitch.drivers import Fault
from replswitch.engine.failure import OnMaster, Role

if TYPE_CHECKING:
    from replswitch.engine.failure import Situation
    from replswitch.engine.servers import Link, Server

_NOT_SENT: Final = frozenset({Fault.UNSENT, Fault.FULL})


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
        self._on_master = 0
        self._on_slaves = 0
        self._lost: Counter[Server] = Counter()
        self.on_master = OnMaster.UNTRIED
        self.error: BaseException | None = None
        self.began_at = began_at

    def failed_on_master(self) -> None:
        """Count a failure on the master."""
        self._on_master += 1

    def failed_on_slave(self, server: Server, *, lost: bool) -> None:
        """Count a failure on a slave.

        Args:
            server: the slave.
            lost: the connection was lost.
        """
        self._on_slaves += 1
        self._lost[server] += lost

    def lose_master(self, situation: Situation, error: BaseException) -> None:
        """Go on without the master, which has failed the statement."""
        if self.error is None:
            not_run = situation.role is Role.MASTER_READ_ONLY or (self._single and situation.fault in _NOT_SENT)
            self.on_master = OnMaster.NOT_RUN if not_run else OnMaster.MAY_HAVE_RUN
            self.error = error

    @property
    def is_first(self) -> bool:
        """Whether the statement is one, and has failed on the master once at most."""
        return self._single and self._on_master == 1

    def is_exhausted(self, server: Server, slaves: int) -> bool:
        """Say whether no other server should be tried.

        Args:
            server: that has just failed.
            slaves: how many there are.
        """
        everywhere = self._on_slaves > slaves + 1  # on each of them, and on the server that has the master's name
        return not self.repeatable or self._lost[server] > 1 or everywhere
