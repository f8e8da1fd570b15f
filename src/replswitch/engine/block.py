"""The open transaction of a database, and the links that have joined it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.decision import MASTER, SLAVE

if TYPE_CHECKING:
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

    has_run = has_read = is_recorded = False
    without_master: BaseException | None = None
    lost: Exception | None = None

    def __init__(self, *, explicit: bool = True) -> None:
        self.explicit = explicit
        self.links: list[Link] = []

    @property
    def on_master(self) -> bool:
        """Whether the master has joined the transaction, and so serves the rest of it."""
        for link in self.links:  # noqa: SIM110 - faster than any(), and each statement in a transaction runs this
            if link.server.state == MASTER:
                return True
        return False

    @property
    def slave(self) -> Link | None:
        """The link to a slave in this transaction; None if there is none."""
        for link in self.links:
            if link.server.state == SLAVE:
                return link
        return None

    def __contains__(self, link: object) -> bool:
        return link in self.links

    def release_reads(self, master_read_only: Server, port: Port) -> None:
        """End the reads on a read-only link to the master, because writes may wait for the locks of reads (S10, R6).

        The reads of a SERIALIZABLE transaction on MariaDB and MySQL lock rows.
        """
        if not port.driver.reads_may_lock or (link := self.slave) is None:
            return
        if link.server is master_read_only and not link.writes.streams:
            self.links.remove(link)
            port.release(link)
