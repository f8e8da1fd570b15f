"""What each thread and each asyncio task holds of one database: for the running request, and for none."""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import _get_running_loop
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict

from replswitch.connect.local import RouteState
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decision import State
    from replswitch.drivers import Driver
    from replswitch.engine.database import Database
    from replswitch.engine.servers import Link
    from replswitch.scope import Scope
    from replswitch.state import Frame

#: How many queries the log keeps for each thread or task; as many as Django's.
QUERIES_KEPT: Final = 9000

#: No frame is this: nothing was looked up yet.
_NEVER: Final[Any] = object()


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


class WorkerState:
    """All that one thread or task holds: for the request it works for, for others that wait, and for none.

    Attributes:
        current: what is held for the running scope.
        frame: the top of the stack when it was looked up.
        queries: what ran while `debug` was on.
    """

    def __init__(self, make: Callable[[Scope | None], RouteState]) -> None:
        self._make = make
        self._outside = make(None)
        self._of_requests: dict[Scope, RouteState] = {}
        self._scope: Scope | None = None
        self._is_borrowed = False
        self.frame: Frame | None = _NEVER
        self.current = self._outside
        self.queries: deque[Query] = deque(maxlen=QUERIES_KEPT)

    def turn_to(self, frame: Frame | None) -> RouteState:
        """Work for the scope of ``frame`` from now on.

        A request has links and a transaction of its own, so that two that take turns in one thread do not mix; but a
        transaction that was begun outside, and in which the request is called, is its transaction too (S5).
        """
        scope = None if frame is None else frame.scope
        if scope is not self._scope or self._is_borrowed:
            self._scope = scope
            may_borrow = self._of_requests or self._outside.route.block is not None
            local = self._in_block(frame) if may_borrow else None
            self._is_borrowed = local is not None
            self.current = local or self._own(scope)
        self.frame = _NEVER if self._is_borrowed else frame
        return self.current

    def _in_block(self, frame: Frame | None) -> RouteState | None:
        """Return what is held for the innermost scope in which a transaction was begun."""
        while frame is not None:
            local = self._of_requests.get(frame.scope)
            if local is not None and local.is_in_block:
                return local
            frame = frame.parent
        return self._outside if self._outside.is_in_block else None

    def _own(self, scope: Scope | None) -> RouteState:
        if scope is None or scope.decision is None:
            if self._outside.scope is not scope:
                self._outside.enter_scope(scope)
                if scope is not None:
                    scope.call_at_end(self._leave)
            return self._outside
        local = self._of_requests.get(scope)
        if local is None:
            if self._of_requests:
                self._forget_ended()
            local = self._of_requests[scope] = self._make(scope)
            scope.call_at_end(self._leave)
        return local

    def _forget_ended(self) -> None:
        """Forget requests that had ended before this thread or task came to them: it outlived them."""
        for scope, local in list(self._of_requests.items()):
            if scope.ended and not local.is_in_block:
                del self._of_requests[scope]

    def _leave(self, scope: Scope) -> None:
        local = self._of_requests.pop(scope, self._outside)
        local.leave_scope(scope)
        if self._scope is scope:
            self.frame = _NEVER  # a frame keeps its scope, and with that what is pending


class _Thread(threading.local):
    worker: WorkerState | None = None


class Workers:
    """The `WorkerState` of each thread and each asyncio task; gone with it.

    Attributes:
        threads: has the running thread's, where no task runs in it; None before it was made.
        debug: whether what runs is kept.
        closed: whether the connection is closed.
    """

    def __init__(self, database: Database, driver: Driver, *, autocommit: bool) -> None:
        self._make = partial(RouteState, database, driver, autocommit)
        self._driver = driver
        self.debug = False
        self.closed = False
        self.threads = _Thread()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], WorkerState] = weakref.WeakKeyDictionary()

    def state(self) -> RouteState:
        """Return what the running thread or task holds for the running scope.

        Raises:
            InterfaceError: the connection is closed.
        """
        if self.closed:
            self.check_open()
        frame = stack()
        # The documented asyncio.get_running_loop() raises where there is none, which costs each query of a thread.
        worker = (self.threads.worker if _get_running_loop() is None else None) or self.worker()
        return worker.current if frame is worker.frame else worker.turn_to(frame)

    def check_open(self) -> None:
        """Refuse to work once the connection is closed."""
        if self.closed:
            raise self._driver.module.InterfaceError(
                "The connection is closed. Make a new one with replswitch.connect()."
            )

    def log(self, state: RouteState, link: Link, sql: str, seconds: float) -> None:
        """Keep what ran."""
        route = state.route
        self.worker().queries.append(
            {"sql": sql, "time": seconds, "db": route.side, "server": link.server.name, "reason": route.reason}
        )

    def worker(self) -> WorkerState:
        """Return all that the running thread or task holds."""
        if _get_running_loop() is not None and (task := asyncio.current_task()) is not None:
            return self._tasks.get(task) or self._tasks.setdefault(task, WorkerState(self._make))
        mine = self.threads.worker = self.threads.worker or WorkerState(self._make)
        return mine
