"""The base class that a binding implements, so that the engine can open and close links, and begin transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.servers import Link, Server


class Port:
    """Opens and closes links to the servers of one database, for one thread, task or session of a binding.

    A subclass implements `open`, `drop` and `borrowed`, and those of the other methods that its transactions need.

    Attributes:
        driver: the driver of all servers.
        one_link: True if both states must share one connection, as for a database in memory.
    """

    driver: Driver
    one_link = False

    def open(self, server: Server) -> Link:
        """Return a link that is alive as far as is known. It may be in use already, idle, or new.

        Raises:
            Exception: the driver's own error.
        """
        raise NotImplementedError

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close ``link`` and all idle links to ``server``, because each of them would cost a time-out."""
        raise NotImplementedError

    def retire(self, server: Server) -> None:
        """Close the idle link to a server whose address is gone. A running transaction or result keeps its link."""

    def borrowed(self, server: Server) -> AbstractContextManager[Raw]:
        """Lend a connection to ``server`` for a query of the engine. Any thread may call this method.

        Raises:
            Exception: the driver's own error.
        """
        raise NotImplementedError

    def join(self, link: Link) -> None:
        """Add a link to the open transaction: begin a transaction on this link, too.

        Raises:
            Exception: the driver's own error.
        """

    def leave(self, link: Link) -> None:
        """Roll back on a link that has joined. The transaction continues without the link."""

    def release(self, link: Link) -> None:
        """Roll back on a link that has only read. The transaction continues without it, on the master."""
        self.leave(link)

    def part_with(self, link: Link) -> None:
        """Forget a dead link that has joined. The transaction continues without the link."""

    def lose_block(self, error: Exception) -> None:
        """End the transaction early. Until its rollback, every further statement raises an error."""

    def as_own(self, error: Exception) -> Exception:
        """Return the error to raise instead of ``error``, of a class that applications of the binding expect."""
        return error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether the transaction had read rows from a slave before the statement began."""
        return False
