"""What is known of the open transaction, and of a statement that has failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.failure import LOST, UNSENT, OnMaster, Role

if TYPE_CHECKING:
    from replswitch.drivers import Fault
    from replswitch.engine.failure import Situation
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link, Server


class Block:
    """A transaction of one database. Links to several servers can join the same transaction (S5).

    Args:
        explicit: the application has begun the transaction. False if a statement began it, because autocommit is off.

    Attributes:
        links: the links that have joined, in that order.
        has_run: a statement has run in it.
        has_read: rows were read from a slave; a later write may depend on stale data (S8).
        without_master: the error with which the master was lost before anything ran. The transaction continues
            without the master, over read-only links (F3).
        lost: the error that ended the transaction early, so that only a rollback is possible; else None.
        is_recorded: the commit makes a marker. False while only unrecorded statements have run on the master.
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
        """Whether the master has joined the transaction, and so serves the rest of it."""
        for link in self.links:  # noqa: SIM110 - faster than any(), and each statement in a transaction runs this
            if link.server.state == MASTER:
                return True
        return False

    @property
    def slave(self) -> Link | None:
        """The link to a slave that has joined; None if no such link has."""
        for link in self.links:
            if link.server.state == SLAVE:
                return link
        return None

    def __contains__(self, link: object) -> bool:
        return link in self.links

    def release_reads(self, master_read_only: Server, port: Port) -> None:
        """End the reads on a read-only link to the master, so that writes there do not wait for their locks (S10, R6).

        The reads of a SERIALIZABLE transaction on MariaDB and MySQL lock rows.
        """
        link = self.slave
        if (
            link is not None
            and link.server is master_read_only
            and port.driver.reads_may_lock
            and not link.writes.streams
        ):
            self.links.remove(link)
            port.release(link)


class Attempt:
    """The tries of one statement so far.

    Args:
        single: False for ``executemany``, because some of its statements may have run before the failure.
        repeatable: the binding can run the statement again. False on a connection that the application has chosen.

    Attributes:
        on_master: the result of the try on the master.
        error: the error with which the master was lost, so that the statement continues without the master; else None.
        began_at: the number of the call that runs the statement, if the binding counts calls; else 0.
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
        """Count a failure on a link with this role. For a slave, also count whether the connection was lost."""
        self._failures[role] += 1
        if role is Role.SLAVE:
            self._lost[server] += fault in LOST

    def lose_master(self, situation: Situation, error: BaseException) -> None:
        """Record that the master was lost during the statement, so that another server is tried instead."""
        if self.error is None:
            not_run = (
                situation.role is Role.MASTER_READ_ONLY
                or situation.on_master is OnMaster.NOT_RUN
                or (self._single and situation.fault in UNSENT)
            )
            self.on_master = OnMaster.NOT_RUN if not_run else OnMaster.MAY_HAVE_RUN
            self.error = error.with_traceback(None)  # else a reference cycle would keep links open

    @property
    def is_first(self) -> bool:
        """Whether the statement is a single one, and has failed on the master exactly once."""
        return self._single and self._failures[Role.MASTER] == 1

    def lost_again(self, server: Server) -> bool:
        """Say whether the connection to a server was lost more than once during this statement."""
        return self._lost[server] > 1

    def is_exhausted(self, role: Role, slaves: int) -> bool:
        """Say whether no further server may be tried, because the statement itself seems to cause the failures.

        Args:
            role: the role of the link on which the statement has just failed.
            slaves: the number of slaves.
        """
        lost_twice = sum(times > 1 for times in self._lost.values())
        if role is Role.MASTER:
            return lost_twice > 0
        # The statement may fail twice on each slave, and twice on the server that the master's name points to.
        return not self.repeatable or lost_twice > 2 or self._failures[Role.SLAVE] > 2 * (slaves + 1)
