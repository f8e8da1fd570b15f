"""What a binding implements, so that the engine can open, join and drop links."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.servers import Link, Server


class Port:
    """How one thread, task or session of a binding reaches the servers of one database.

    A subclass implements `open`, `drop` and `borrowed`, and those of the other methods that its transactions need.

    Attributes:
        driver: the driver of all servers.
        one_link: whether both states must share one connection, as for a database in memory.
    """

    driver: Driver
    one_link = False

    def open(self, server: Server) -> Link:
        """Return a link that is alive as far as is known: one that is in use, an idle one, or a new one.

        Raises:
            Exception: the driver's own error.
        """
        raise NotImplementedError

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close ``link`` and all idle links to ``server``: each of them would cost a time-out."""
        raise NotImplementedError

    def borrowed(self, server: Server) -> AbstractContextManager[Raw]:
        """Lend a connection for a question of the engine, in any thread.

        Raises:
            Exception: the driver's own error.
        """
        raise NotImplementedError

    def join(self, link: Link) -> None:
        """Begin the running transaction on a link.

        Raises:
            Exception: the driver's own error.
        """

    def leave(self, link: Link) -> None:
        """Roll back on a link that has joined. The transaction continues without the link."""

    def part_with(self, link: Link) -> None:
        """Forget a dead link that has joined. The transaction continues without the link."""

    def lose_block(self, error: Exception) -> None:
        """End the transaction early; every statement before its rollback is an error."""

    def as_own(self, error: Exception) -> Exception:
        """Return an error of the type that applications of the binding expect."""
        return error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Say whether the transaction had read rows from a slave before the statement began."""
        return False
