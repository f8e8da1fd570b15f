"""The links and the transaction that one thread or task has in one database, for one request or outside requests."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.block import Block
from replswitch.engine.port import Port
from replswitch.engine.route import Route
from replswitch.errors import ReplSwitchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.connect.pool import LeasedLink
    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Link, Server
    from replswitch.scope import Scope

logger = logging.getLogger(__name__)


class RouteState(Port):
    """The links and the transaction of a thread or task, for one request or outside requests. It implements `Port`.

    Attributes:
        driver: the driver of all servers.
        route: finds the link for each statement.
        scope: the scope that the thread or task works for; None outside any scope.
        autocommit: whether a statement outside a transaction is committed by itself.
    """

    def __init__(self, database: Database, driver: Driver, autocommit: bool, scope: Scope | None) -> None:
        self.driver = driver
        self.scope = scope
        self.autocommit = autocommit
        self._links: dict[Server, LeasedLink] = {}
        self.route = Route(database, self)

    def begin_implicitly(self) -> None:
        """Begin a transaction, unless one is open. Call this method before each statement while autocommit is off."""
        if self.route.block is None:
            self.route.begin(Block(explicit=False))

    @property
    def is_in_block(self) -> bool:
        """Whether a transaction is open that the application began with ``begin()``."""
        return self.route.block is not None and self.route.block.explicit

    # replswitch.engine.port.Port

    def open(self, server: Server) -> Link:
        """Return the link that this thread or task holds, if it is alive. Otherwise take one from the server's pool."""
        block, link = self.route.block, self._links.get(server)
        if link is not None:
            if block is not None and link in block:
                return link
            if not (link.is_own and self.driver.alive(link.raw)):
                link.discard()
            elif not link.writes.streams:
                return link  # otherwise, a cursor is still reading from the link, so take another one (S6)
        elif server.state == MASTER:
            self._release_slaves()
        taken: LeasedLink = server.source.take(server)
        self._links[server] = taken
        return taken

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close the link that this thread or task holds, and the idle links of the server."""
        held, block = self._links.get(server), self.route.block
        if held is not None and (held is link or (link is None and (block is None or held not in block))):
            self._links.pop(server, None)  # `rest` may have removed it already, while a websocket waits
            held.discard()
        server.source.drop_idle()

    def retire(self, server: Server) -> None:
        """Release the link to a server whose address is gone, unless the transaction uses the link."""
        held, block = self._links.get(server), self.route.block
        if held is not None and (block is None or held not in block):
            self._links.pop(server, None)

    def join(self, link: Link) -> None:
        """Begin the transaction on a link."""
        self.driver.begin(link.raw)

    def leave(self, link: Any) -> None:
        """Roll back on one link. If that fails, or if the link belongs to another process (S12), discard the link."""
        with suppress(self.driver.module.Error):
            if link.is_own:
                self.driver.rollback(link.raw)
                return
        self._links.pop(link.server, None)
        link.discard()

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        """Lend a connection from the server's pool for the block of a ``with`` statement."""
        link = server.source.take(server)
        yield link.raw

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether a transaction is open, and has read from a slave."""
        return self.route.block is not None and self.route.block.has_read

    # Transactions

    def commit(self) -> None:
        """Commit on every link in the transaction; see `Route.commit`. Do nothing outside a transaction."""
        block = self.route.block
        if block is not None:
            self.route.end()
            self.route.commit(block)

    def rollback(self) -> None:
        """Roll back on every link in the transaction. Do nothing outside a transaction."""
        block = self.route.end()
        if block is not None:
            self.route.roll_back(block)

    # Scopes

    def enter_scope(self, scope: Scope | None) -> None:
        """Release what was held for the previous scope, and use this state for another scope from now on."""
        if self.scope is not None:
            self.leave_scope(self.scope)
        self.scope = scope

    def rest(self) -> None:
        """Give the links back until the next statement, unless a transaction is open.

        If another thread is running a statement on a link, that thread keeps the link until it has finished.
        """
        if self.route.block is None:
            self._links.clear()
            self.route.let_go()

    def leave_scope(self, scope: Scope) -> None:
        """Release the links and the transaction of ``scope``. Another thread may call this when it ends the scope.

        This method drops only the references to links. A link goes back to its pool as soon as no other thread and no
        cursor uses it any more. A transaction that was begun inside a `use_*` block continues after the block, but a
        transaction that was begun in a request ends with the request.
        """
        if self.scope is not scope:
            return
        block = self.route.block
        if block is not None and scope.safe_request is not None and scope.safe_request.runs_again:
            block.links.clear()  # the second try begins a transaction of its own
            self.route.end()
            block = None
        if block is not None and scope.is_request and block.lost is None:
            logger.warning(
                "A request ended with an open transaction, which was rolled back. Commit or roll back in the request."
            )
            block.lost = ReplSwitchError(
                "The request that began this transaction has ended, so the transaction was rolled back."
            )
            block.links.clear()  # the pool rolls back each link that is given back
        if block is None:
            self._links.clear()
        else:
            self._links = {server: link for server, link in self._links.items() if link in block}
        self.route.leave_scope()
        self.scope = None

    def _release_slaves(self) -> None:
        block = self.route.block
        for server, link in list(self._links.items()):
            if server.state == SLAVE and (block is None or link not in block):
                self._links.pop(server, None)
