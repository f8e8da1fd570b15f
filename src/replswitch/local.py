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
from replswitch.state import MASTER, SLAVE, stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.links import Link
    from replswitch.positions import Position
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
    """What a thread or task holds while it works for one request, or for none.

    Attributes:
        scope: the scope that it works for; None outside any.
        links: at most one for each side: one slave serves all reads of a scope (S6).
        slave_has: how far the slave had come, at least, when its link was chosen; None where nobody asked.
        transaction: the open one.
        autocommit: whether a statement outside a transaction stands for itself.
        frame: the top of the stack when the latest link was chosen, and `pins` the scope's: while both are the same,
            the choice is.
        link: the link that was chosen.
        pins: see `frame`.
        current: a link to the master of which it is known that it leads to who is the master now, for this scope.
        side: the latest decision, and `reason` the reason for it.
        read_from_slave: whether the scope has read from a slave.
    """

    def __init__(self, *, autocommit: bool) -> None:
        self.scope: Scope | None = None
        self.links: dict[State, Link] = {}
        self.slave_has: Position | None = None
        self.transaction: Transaction | None = None
        self.autocommit = autocommit
        self.frame: Frame | None = None
        self.link: Link | None = None
        self.pins: Mapping[Hashable, str] | None = None
        self.current: Link | None = None
        self.side: State = MASTER
        self.reason = "default"
        self.read_from_slave = False

    @property
    def is_in_block(self) -> bool:
        """Whether a transaction is open whose beginning the application has set."""
        return self.transaction is not None and self.transaction.explicit

    def enter(self, scope: Scope | None) -> None:
        """Work for another scope from now on: every scope chooses its own slave."""
        if self.scope is not None:
            self.leave(self.scope)
        if self.transaction is None:
            self.links.pop(SLAVE, None)
        self.scope, self.link, self.reason, self.read_from_slave = scope, None, "default", False
        self.current = None

    def leave(self, scope: Scope) -> None:
        """Let go what was held for ``scope``. It may be another thread that ends the scope.

        Links are not given back but no longer referred to: one that is in use, in another thread or by a cursor,
        goes back when it no longer is. A transaction outlives a block in which it was begun, but not a request.
        """
        if self.scope is not scope:
            return
        transaction = self.transaction
        if transaction is not None and scope.is_request and transaction.lost is None:
            logger.warning("A request ended in an open transaction, which was rolled back. Commit it or roll it back.")
            transaction.abandon(
                ReplSwitchError("The request in which this transaction was begun has ended, and it was rolled back.")
            )
        kept = {} if transaction is None else {s: link for s, link in self.links.items() if link in transaction}
        self.links, self.link, self.current = kept, None, None
        self.frame = None  # a frame keeps its scope, and with that what is in doubt


class Holdings:
    """All that one thread or task holds: for the request it works for, for others that wait, and for none.

    Attributes:
        scope: the scope that was running when `current` was chosen.
        current: what is held for it.
        is_borrowed: `current` was chosen for the transaction that is open there.
        queries: what ran while `debug` was on.
    """

    def __init__(self, *, autocommit: bool) -> None:
        self._autocommit = autocommit
        self._outside = Local(autocommit=autocommit)
        self.scope: Scope | None = None
        self.current = self._outside
        self.is_borrowed = False
        self.queries: deque[Query] = deque(maxlen=QUERIES_KEPT)

    def turn_to(self, frame: Frame | None) -> None:
        """Work for the scope of ``frame`` from now on.

        A request has links and a transaction of its own, so that two that take turns in one thread do not mix; but
        a transaction that was begun outside, and in which the request is called, is its transaction too (S5).
        """
        self.scope = None if frame is None else frame.scope
        outer = frame
        while outer is not None:
            local = outer.scope.held_by(self)
            if local is not None and local.is_in_block:
                break
            outer = outer.parent
        else:
            local = self._outside
        self.is_borrowed = local.is_in_block
        self.current = local if self.is_borrowed else self._own(self.scope)

    def _own(self, scope: Scope | None) -> Local:
        if scope is None or not scope.is_request:
            if self._outside.scope is not scope:
                self._outside.enter(scope)
                if scope is not None:
                    scope.hold(self, self._outside)
            return self._outside
        local = scope.held_by(self)
        if local is None:
            local = Local(autocommit=self._autocommit)
            local.scope = scope
            scope.hold(self, local)
        return local


class Locals:
    """The `Holdings` of each thread and each asyncio task; gone with it."""

    def __init__(self, *, autocommit: bool) -> None:
        self._autocommit = autocommit
        self._threads = threading.local()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Holdings] = weakref.WeakKeyDictionary()

    def mine(self) -> Local:
        """Return what the running thread or task holds for the running scope."""
        holdings = self.holdings()
        frame = stack()
        if holdings.scope is not (None if frame is None else frame.scope) or (
            holdings.is_borrowed and not holdings.current.is_in_block
        ):
            holdings.turn_to(frame)
        return holdings.current

    def holdings(self) -> Holdings:
        """Return all that the running thread or task holds."""
        # The documented asyncio.get_running_loop() raises where there is none, which costs each query of a thread.
        if _get_running_loop() is not None and (task := asyncio.current_task()) is not None:
            holdings = self._tasks.get(task)
            if holdings is None:
                holdings = self._tasks[task] = Holdings(autocommit=self._autocommit)
            return holdings
        try:
            mine: Holdings = self._threads.holdings
        except AttributeError:
            mine = self._threads.holdings = Holdings(autocommit=self._autocommit)
        return mine
