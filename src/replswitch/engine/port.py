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

    A subclass implements `open`, `drop` and `borrowed`, and what its transactions need of the others.

    Attributes:
        driver: of all servers.
        one_link: whether both states must share one connection, as for a database in memory.
    """

    driver: Driver
    one_link = False

    def open(self, server: Server) -> Link:
        """Return a link: one that is held, an idle one, or a new one; alive, as far as that is known.

        Raises:
            Exception: the driver's own error.
        """
        raise NotImplementedError

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close ``link``, and the other links to ``server`` that are not in use: each would cost a time-out."""
        raise NotImplementedError

    def borrowed(self, server: Server) -> AbstractContextManager[Raw]:
        """Lend a connection for a question of ours, in any thread.

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
        """Roll back on a link that has joined. The transaction goes on without it."""

    def part_with(self, link: Link) -> None:
        """Forget a dead link that has joined. The transaction goes on without it."""

    def lose_block(self, error: Exception) -> None:
        """The transaction is over; until its rollback each further statement is an error."""

    def as_own(self, error: Exception) -> Exception:
        """Return an error as the binding's applications expect it."""
        return error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Say whether the transaction had read rows from a slave before the statement began."""
        return False
