"""A transaction of one database. It belongs to the database, not to a link: links join it (S5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.state import MASTER

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.links import Link


class Transaction:
    """What one thread or task does between ``begin()`` and ``commit()``. It has one outcome for every link in it.

    Args:
        driver: begins and ends it on each link.
        explicit: the application said where it begins; without autocommit any statement does.

    Attributes:
        links: the links in it, in the order in which they joined.
        read: rows were read from a slave, which may be stale for what is written next (S8).
        lost: the error with which a server gave the transaction up; nothing but a rollback is left then.
    """

    def __init__(self, driver: Driver, *, explicit: bool = True) -> None:
        self._driver = driver
        self.explicit = explicit
        self.links: list[Link] = []
        self.read = False
        self.lost: Exception | None = None

    @property
    def on_master(self) -> bool:
        """Whether the master is in, and so serves the rest."""
        return any(link.server.state == MASTER for link in self.links)

    def __contains__(self, link: Link) -> bool:
        return link in self.links

    def join(self, link: Link) -> None:
        """Take a link in: the transaction begins on it, with its first statement."""
        self._driver.begin(link.raw)
        self.links.append(link)

    def adopt(self, link: Link) -> None:
        """Take in a link on which the application began a transaction by a statement of its own."""
        self.links.append(link)

    def leave(self, link: Link) -> None:
        """Roll one link back and go on without it."""
        self.links.remove(link)
        self._driver.rollback(link.raw)

    def ended_on(self, link: Link) -> None:
        """Follow a transaction that the server has ended on ``link``: the links to slaves let go."""
        self._end_quietly([other for other in self.links if other is not link])

    def commit(self) -> None:
        """Let the slaves' snapshots go, for which SQLite's master may have to wait, then commit on the master.

        Where the master fails, all is rolled back.
        """
        if self.lost is not None:
            self.rollback()
            raise self.lost
        self._end_quietly([link for link in self.links if link.server.state != MASTER])
        try:
            for link in self.links:
                if link.server.state == MASTER:
                    self._driver.commit(link.raw)
        except self._driver.module.Error:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Roll back on every link. A link that fails is closed, which rolls back too."""
        self._end_quietly(self.links)

    def abandon(self, error: Exception) -> None:
        """Let the links go and answer whoever goes on in it with ``error``. The pool rolls back what comes back."""
        self.lost = error
        self.links.clear()

    def _end_quietly(self, links: list[Link]) -> None:
        for link in links:
            try:
                self._driver.rollback(link.raw)
            except self._driver.module.Error:
                link.discard()
