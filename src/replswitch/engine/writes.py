"""Record the writes of one database in the scope that made them, as soon as they are known (M1)."""

from __future__ import annotations

import logging
from asyncio import _get_running_loop
from functools import partial
from threading import get_ident
from time import monotonic, time
from typing import TYPE_CHECKING, Final
from weakref import ref

from replswitch.drivers import Written
from replswitch.engine.recording import is_recording, is_repeatable
from replswitch.errors import PositionError
from replswitch.outside import Outside
from replswitch.positions.clock import fall_back_to_clock
from replswitch.scope import waiting
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from replswitch.drivers import WriteTracker
    from replswitch.engine.master import MasterLoss
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")

# Looking up a member of an Enum takes longer.
_NO: Final = Written.NO
_ASK: Final = Written.ASK


def _is_outside(scope: Scope | None) -> bool:
    """Return whether a scope is outside any request. The outermost scope decides, because a job may make requests."""
    return scope is None or not (scope if scope.within is None else scope.with_enclosing()[-1]).is_request


def committed_elsewhere() -> None:
    """Record that the running code has committed something in a database that replswitch does not switch.

    The commit makes no marker. But the request does not run again after it, because a second run would commit twice
    (R5).
    """
    if is_repeatable():
        return
    frame = stack()
    scope = None if frame is None else frame.scope
    if _is_outside(scope):
        Outside.count()
    for each in () if scope is None else scope.with_enclosing():
        if each.safe_request is not None:
            each.safe_request.has_committed_elsewhere = True


class PendingWrite:
    """Statements of a scope that may have written. To ask the server about them, call this object with the scope.

    This object does not refer to its scope, because the scope refers to this object. A reference cycle would keep the
    connection open until Python's garbage collector runs.

    Attributes:
        resolved: the server has been asked. Later statements need another pending write.
        thread: the thread that used the connection last. Only this thread may ask.
    """

    __slots__ = ("_since", "_tracker", "_writes", "resolved", "thread")

    def __init__(self, writes: Writes, tracker: WriteTracker) -> None:
        self._writes = writes
        self._tracker = tracker
        self._since = tracker.last_known_position  # before the first of the statements
        self.thread = get_ident()
        self.resolved = False

    def __call__(self, scope: Scope) -> None:
        """Ask the server what was written, and record the answer in the scope."""
        if self.resolved:
            return
        self.resolved = True
        if self.thread == get_ident():
            self._writes.ask(scope, self._tracker, self._since)
        else:  # another thread may be in the middle of a statement on that connection
            self._writes.locate_in(scope)


class Writes:
    """The writes of one database.

    Args:
        name: the name of its replicated set.
        master_loss: the loss of the master, which a successful write ends.

    Attributes:
        locate: queries the master's position on a connection of the running thread; see `Driver.latest_position`. A
            binding may set it.
    """

    locate: Callable[[], Position | Written] | None = None

    def __init__(self, name: str, master_loss: MasterLoss) -> None:
        self._name = name
        self._master_loss = master_loss

    def record_unknown(self, *, is_lost: bool) -> None:
        """Record that the running code may have committed a write on the master.

        Args:
            is_lost: the connection was lost before the answer.
        """
        frame = stack()
        self.record_in(None if frame is None else frame.scope, Written.YES, monotonic() if is_lost else 0)

    def look(
        self,
        key: Hashable,
        tracker: WriteTracker,
        scope: Scope | None = None,
        *,
        recorded: bool | None = None,
        at_once: bool = False,
        busy: bool = False,
    ) -> PendingWrite | None:
        """Record what was committed through a connection since the last call.

        If the driver does not know what was committed, the server is asked later, before the scope reads from a slave
        or its response is sent.

        Args:
            key: identifies the connection in the scope.
            tracker: the connection's write tracker.
            scope: the scope of the commit; the running scope by default.
            recorded: True if the commit makes a marker; by default, True outside blocks of `unrecorded`.
            at_once: ask now, because the connection is about to serve another scope.
            busy: a statement is running, so the server cannot be asked now. The caller must call again after the
                statement.

        Returns:
            the pending write. It covers the following statements as well, until it is resolved or the scope changes.
            None if nothing is pending.
        """
        frame = stack() if scope is None else None
        scope = scope if frame is None else frame.scope
        others = waiting(scope)
        must_ask_now = bool(others) or (scope is not None and (at_once or scope.answered))  # the last chance to ask
        if scope is not None and tracker.unread and tracker.owes_results and is_recording():
            # The unread results may be those of a procedure, or the rows of an INSERT that are read one by one.
            scope.add_pending(("unread", tracker), partial(self._look_behind_results, tracker))
        if (busy and must_ask_now) or (at_once and self._settle(key, tracker)):
            return None
        status = tracker.pop_write_status()
        if status is _NO:
            return None
        if not tracker.has_rows:
            if scope is None or _is_outside(scope):
                Outside.count()
            if self._master_loss.lasts:
                self._master_loss.wrote(certain=not isinstance(status, Written))
        if not (scope or others) or not (is_recording() if recorded is None else recorded):
            tracker.discard_write_status(with_rows=scope is None)
            if scope is None and is_recording():
                self._record_outside(status)
            if scope is not None and not is_repeatable():
                scope.has_unmarked = True
        elif status is not _ASK:
            self.record_in(scope, status)
        elif scope is None or must_ask_now:
            self.ask(scope, tracker, tracker.last_known_position)
        else:
            return self._add_pending(scope, key, tracker)
        return None

    def _look_behind_results(self, tracker: WriteTracker, scope: Scope) -> None:
        """Record a possible write if a statement still has unread results, because one of them may show a write."""
        if tracker.owes_results:
            self.record_in(scope, Written.YES)

    def _add_pending(self, scope: Scope, key: Hashable, tracker: WriteTracker) -> PendingWrite:
        pending = scope.pending.get(key)
        if isinstance(pending, PendingWrite) and not pending.resolved:
            pending.thread = get_ident()
            return pending
        pending = PendingWrite(self, tracker)
        scope.add_pending(key, pending)
        tracker.pending_in = ref(scope)
        return pending

    @staticmethod
    def _settle(key: Hashable, tracker: WriteTracker) -> bool:
        """Ask the server now about the pending write of a connection. Return False if no write is pending."""
        scope = None if tracker.pending_in is None else tracker.pending_in()
        pending = None if scope is None else scope.pending.get(key)
        if scope is None or not isinstance(pending, PendingWrite) or pending.resolved:
            return False
        pending.thread = get_ident()
        scope.settle(key)
        tracker.pop_write_status()  # the answer of settle() includes the write
        return True

    def ask(self, scope: Scope | None, tracker: WriteTracker, since: Position | None) -> None:
        """Ask the master whether something was written since a position. Record a write if so, or if asking fails."""
        status: Position | Written = Written.YES
        try:
            if not (tracker.owes_results or tracker.streams):  # else assume a write, as no query can be sent (S6)
                status = tracker.ask(since)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
        except Exception as error:  # noqa: BLE001 - any error of the driver: assume a write
            logger.info("The master could not be asked what was written, so replswitch assumes a write: %s", error)
            status = self._located()  # the connection may have been closed since the write
        except BaseException:  # such as the cancellation of a task
            self.record_in(scope, status)
            raise
        if self._master_loss.lasts and not isinstance(status, Written):
            # If answers also cover other sessions, the first answer on a connection says nothing about this session.
            self._master_loss.wrote(certain=since is not None or not tracker.includes_others)
        self.record_in(scope, status)

    def locate_in(self, scope: Scope) -> None:
        """Record a write of another thread, with a position that includes the write if such a position is known."""
        self.record_in(scope, self._located())

    def _located(self) -> Position | Written:
        """Return a position that includes all writes so far; `Written.YES` if no such position is known.

        In the thread of an event loop the server is not asked, because the query would block the loop. A master that
        cannot be reached is not asked either (F3).
        """
        status: Position | Written = Written.YES
        if self.locate is not None and _get_running_loop() is None and not self._master_loss.is_unreachable():
            try:
                status = self.locate()
            except Exception as error:  # noqa: BLE001 - any error of the driver
                logger.info(
                    "The position of a write is unknown, because the query to the master failed: %s. The marker (the "
                    "signed cookie) has only the time of the write, so the master serves the visitor for some time.",
                    error,
                )
        return Written.YES if status is Written.NO else status

    def record_in(self, scope: Scope | None, status: Position | Written, lost_at: float = 0) -> None:
        """Record what is known about the writes of a scope. Without a scope, record it in all waiting requests.

        Args:
            scope: the scope.
            status: what is known.
            lost_at: see `replswitch.scope.Scope.record`.
        """
        if status is not Written.NO:
            if _is_outside(scope):
                self._record_outside(status)
            position = None if isinstance(status, Written) else status
            for each in waiting() if scope is None else (scope,):
                each.record(self._name, position, lost_at)

    def _record_outside(self, status: Position | Written) -> None:
        """Record a commit outside requests, for the jobs that are started outside requests."""
        if status is _ASK:
            Outside.may_have_written_at = time()
        else:
            Outside.record(self._name, None if isinstance(status, Written) else status)
