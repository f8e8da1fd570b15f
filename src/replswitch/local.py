"""What one thread or task holds of one database: its links, its transaction, its log of queries."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypedDict

from replswitch.errors import ReplSwitchError
from replswitch.state import SLAVE

if TYPE_CHECKING:
    from replswitch.links import Link
    from replswitch.scope import Scope
    from replswitch.state import Frame, State
    from replswitch.transaction import Transaction

logger = logging.getLogger(__name__)

#: How many queries the log keeps for each thread or task; as many as Django's.
QUERIES_KEPT: Final = 9000


class Query(TypedDict):
    """One entry of ``connection.queries``.

    ``sql`` is the statement as the application gave it, ``time`` its duration in seconds, ``db`` the side it ran on,
    ``server`` that server's name, ``reason`` why it was chosen.
    """

    sql: str
    time: float
    db: State
    server: str
    reason: str


class Local:
    """What belongs to one thread or task until its scope ends or it is closed.

    Attributes:
        scope: the scope that the links were taken in; None outside any.
        links: at most one for each side: one slave serves all reads of a scope (S6).
        transaction: the open one.
        autocommit: whether a statement outside a transaction stands for itself.
        frame: the top of the stack when the latest decision was noted; with `link` it tells whether to note again.
        link: the link of the latest decision.
        read_from_slave: whether the scope has read from a slave.
        queries: what ran while `debug` was on.
    """

    def __init__(self, *, autocommit: bool) -> None:
        self._default = autocommit
        self._thread = threading.get_ident()
        self.scope: Scope | None = None
        self.links: dict[State, Link] = {}
        self.transaction: Transaction | None = None
        self.autocommit = autocommit
        self.frame: Frame | None = None
        self.link: Link | None = None
        self.read_from_slave = False
        self.queries: deque[Query] = deque(maxlen=QUERIES_KEPT)

    def enter(self, scope: Scope | None) -> None:
        """Work for another scope from now on: every scope chooses its own slave."""
        if self.scope is not None:
            self.leave(self.scope)
        transaction = self.transaction
        if transaction is not None and transaction.is_of_ended_request:
            self.abandon(transaction)
            self.transaction = transaction = None
        if transaction is None:
            self.links.pop(SLAVE, None)
        self.scope = scope
        self.read_from_slave = False
        if scope is not None:
            scope.hold(self)

    def leave(self, scope: Scope) -> None:
        """Let go what was held for ``scope``. It may be another thread that ends the scope.

        Links are not given back but no longer referred to: one that is in use, in another thread or by a cursor,
        goes back when it no longer is. A transaction outlives a block in which it was begun, but not a request.
        """
        if self.scope is not scope:
            return
        transaction = self.transaction
        if scope.decision is not None:
            self.autocommit = self._default
            if transaction is not None and transaction.is_of_ended_request and self._thread == threading.get_ident():
                self.abandon(transaction)
        kept = {} if transaction is None else {s: link for s, link in self.links.items() if link in transaction}
        self.links, self.link = kept, None

    def abandon(self, transaction: Transaction) -> None:
        """Roll back a transaction that its request left open. Whoever still works in it is told."""
        if transaction.lost is None:
            logger.warning("A request ended in an open transaction, which was rolled back. Commit it or roll it back.")
            transaction.rollback()
            transaction.lost = ReplSwitchError(
                "The request in which this transaction was begun has ended, and the transaction was rolled back."
            )


class Locals:
    """The `Local` of each thread and each asyncio task; gone with it."""

    def __init__(self, *, autocommit: bool) -> None:
        self._autocommit = autocommit
        self._threads = threading.local()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Local] = weakref.WeakKeyDictionary()

    def mine(self) -> Local:
        """Return the running thread's or task's own."""
        # The documented asyncio.get_running_loop() raises where there is none, which costs each query of a thread.
        if _get_running_loop() is not None and (task := asyncio.current_task()) is not None:
            local = self._tasks.get(task)
            if local is None:
                local = self._tasks[task] = Local(autocommit=self._autocommit)
            return local
        try:
            mine: Local = self._threads.local
        except AttributeError:
            mine = self._threads.local = Local(autocommit=self._autocommit)
        return mine
