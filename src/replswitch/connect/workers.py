"""Keep the `RouteState` of each thread and asyncio task in one database, for each request and outside requests."""

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

#: How many queries the log keeps for each thread or task. It is the same number as in Django.
QUERIES_KEPT: Final = 9000

#: Not equal to any frame, so that the state is looked up again.
_NEVER: Final[Any] = object()


class Query(TypedDict):
    """One entry of ``connection.queries``.

    ``sql`` is the statement as the application gave it, ``time`` its duration in seconds, ``db`` the state in which it
    ran, ``server`` the name of the server, and ``reason`` why this server was chosen.
    """

    sql: str
    time: float
    db: State
    server: str
    reason: str


class WorkerState:
    """The states of one thread or task: one for each request that it has begun, and one for code outside requests.

    Args:
        make: makes the state for a scope.
        task: the task; None for a thread.

    Attributes:
        current: the state of the running scope.
        frame: the top of the stack when `current` was looked up.
        queries: the statements that ran while `debug` was on.
    """

    def __init__(
        self, make: Callable[[Scope | None], RouteState], task: weakref.ref[asyncio.Task[Any]] | None = None
    ) -> None:
        self._make = make
        self._task = task
        self._outside = make(None)
        self._of_requests: dict[Scope, RouteState] = {}
        self._scope: Scope | None = None
        self._is_borrowed = False
        self.frame: Frame | None = _NEVER
        self.current = self._outside
        self.queries: deque[Query] = deque(maxlen=QUERIES_KEPT)

    def turn_to(self, frame: Frame | None) -> RouteState:
        """From now on, use the `RouteState` for the scope of ``frame``, and return it.

        Each request has links and a transaction of its own, so that two requests that take turns in one thread do not
        mix. But if a request is called inside an outer transaction, it uses that transaction (S5).
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
        """Return the state of the innermost scope that has begun a transaction; None if no scope has."""
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
            if scope.is_open and self._task is not None and (task := self._task()) is not None:
                task.add_done_callback(lambda _: scope.rest())
        return local

    def _forget_ended(self) -> None:
        """Remove the states that were made for requests that had already ended, because no end removes such a state."""
        for scope, local in list(self._of_requests.items()):
            if scope.ended and not local.is_in_block:
                del self._of_requests[scope]

    def _leave(self, scope: Scope) -> bool:
        """Release the links of a scope that has ended (return False), or of a websocket that waits (return True)."""
        if not (scope.ended or self._is_over()):
            self._of_requests[scope].rest()
            return True
        local = self._of_requests.pop(scope, self._outside)
        local.leave_scope(scope)
        if self._scope is scope:
            self.frame = _NEVER  # a frame would keep its scope in memory, with all pending writes
        return False

    def _is_over(self) -> bool:
        """Return whether this state belongs to a task that is done."""
        task = None if self._task is None else self._task()
        return self._task is not None and (task is None or task.done())


class _Thread(threading.local):
    worker: WorkerState | None = None


class Workers:
    """Keeps a `WorkerState` for each thread and each asyncio task, which is freed with its thread or task.

    Attributes:
        threads: a `threading.local`. Its ``worker`` is the state of the thread outside any task; None until it is made.
        debug: whether the statements that run are kept for `Connection.queries`.
        closed: True after the connection was closed.
    """

    def __init__(self, database: Database, driver: Driver, *, autocommit: bool) -> None:
        self._make = partial(RouteState, database, driver, autocommit)
        self._driver = driver
        self.debug = False
        self.closed = False
        self.threads = _Thread()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], WorkerState] = weakref.WeakKeyDictionary()

    def state(self) -> RouteState:
        """Return the state of the running thread or task for the running scope.

        Raises:
            InterfaceError: the connection is closed.
        """
        if self.closed:
            self.check_open()
        frame = stack()
        # The documented asyncio.get_running_loop() raises an error if no loop runs, and would slow each query down.
        worker = (self.threads.worker if _get_running_loop() is None else None) or self.worker()
        return worker.current if frame is worker.frame else worker.turn_to(frame)

    def check_open(self) -> None:
        """Raise an error if the connection is closed."""
        if self.closed:
            raise self._driver.module.InterfaceError(
                "The connection is closed. Make a new one with replswitch.connect()."
            )

    def log(self, state: RouteState, link: Link, sql: str, seconds: float) -> None:
        """Add a statement that ran to `Connection.queries`."""
        route = state.route
        self.worker().queries.append(
            {"sql": sql, "time": seconds, "db": route.side, "server": link.server.name, "reason": route.reason}
        )

    def worker(self) -> WorkerState:
        """Return the `WorkerState` of the running thread or task."""
        if _get_running_loop() is not None and (task := asyncio.current_task()) is not None:
            return self._tasks.get(task) or self._tasks.setdefault(task, WorkerState(self._make, weakref.ref(task)))
        mine = self.threads.worker = self.threads.worker or WorkerState(self._make)
        return mine
