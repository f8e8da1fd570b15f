"""What is written in one database is recorded in the scope that wrote it, once it is known (M1)."""

from __future__ import annotations

import logging
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import ref

from replswitch.drivers import Written
from replswitch.engine.recording import is_recording, is_repeatable
from replswitch.errors import PositionError
from replswitch.positions.clock import fall_back_to_clock
from replswitch.scope import Outside, waiting
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers import WriteTracker
    from replswitch.engine.master import MasterLoss
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")


class PendingWrite:
    """Statements of a scope may have written, and the server has not been asked yet. Called with the scope, it asks.

    It does not keep the scope, which keeps it: in that circle the connection would wait for Python's garbage collector.

    Attributes:
        resolved: the server was asked. What runs from now on is another pending write.
        thread: the thread that used the connection last, and may ask.
    """

    __slots__ = ("_since", "_tracker", "_writes", "resolved", "thread")

    def __init__(self, writes: Writes, tracker: WriteTracker) -> None:
        self._writes = writes
        self._tracker = tracker
        self._since = tracker.last_known_position  # before the first of the statements
        self.thread = get_ident()
        self.resolved = False

    def __call__(self, scope: Scope) -> None:
        """Ask, and record the answer in the scope."""
        if self.resolved:
            return
        self.resolved = True
        if self.thread == get_ident():
            self._writes.ask(scope, self._tracker, self._since)
        else:  # another thread may be in the middle of a statement on that connection
            self._writes.record_in(scope, Written.YES)


class Writes:
    """The writes of one database.

    Args:
        name: of its replicated set.
        master_loss: whether the master serves, which a write shows.
    """

    def __init__(self, name: str, master_loss: MasterLoss) -> None:
        self._name = name
        self._master_loss = master_loss

    def record(self, position: Position | None = None) -> None:
        """Record that the running code has committed a write on the master, or may have.

        Args:
            position: from which on a slave has it; None where that is unknown.
        """
        frame = stack()
        self.record_in(None if frame is None else frame.scope, position or Written.YES)

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
        """Record what was committed through a connection since this was last called.

        Where the driver does not know, the server is asked before the scope reads from a slave or answers.

        Args:
            key: stands for the connection in the scope.
            tracker: the connection's.
            scope: in which it was committed; the running one by default.
            recorded: whether it counts; by default, unless the running code is in a block of `unrecorded`.
            at_once: ask now, because the connection is about to serve another scope.
            busy: a statement runs, so the server cannot be asked now. This is called again when it can.

        Returns:
            what is pending for the statements that follow as well, as long as it is not resolved and the scope is the
            same; None where nothing is.
        """
        frame = stack() if scope is None else None
        scope = scope if frame is None else frame.scope
        others = waiting(scope)
        must_ask_now = bool(others) or (scope is not None and (at_once or scope.answered))  # nothing else will in time
        if scope is not None and tracker.unread and tracker.owes_results and is_recording():
            # A procedure's further statements, or an INSERT whose rows are read one by one.
            scope.add_pending(("unread", key), partial(self._look_behind_results, tracker))
        if (busy and must_ask_now) or (at_once and self._is_settled(key, tracker)):
            return None
        status = tracker.pop_write_status()
        if status is Written.NO:
            return None
        if not tracker.has_rows:
            Outside.count(scope)
        if self._master_loss.lasts and not tracker.has_rows:
            self._master_loss.wrote(certain=not isinstance(status, Written))
        if not (scope or others) or not (is_recording() if recorded is None else recorded):
            tracker.discard_write_status(with_rows=scope is None)
            if scope is not None and not is_repeatable():
                scope.has_unmarked = True
        elif status is not Written.ASK:
            self.record_in(scope, status)
        elif scope is None or must_ask_now:
            self.ask(scope, tracker, tracker.last_known_position)
        else:
            return self._add_pending(scope, key, tracker)
        return None

    def _look_behind_results(self, tracker: WriteTracker, scope: Scope) -> None:
        """Record that statements may have written whose results are not read yet. What is read was looked at."""
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
    def _is_settled(key: Hashable, tracker: WriteTracker) -> bool:
        """Ask about what is pending on a connection, before it serves another scope; False where nothing is."""
        scope = None if tracker.pending_in is None else tracker.pending_in()
        pending = None if scope is None else scope.pending.get(key)
        if scope is None or not isinstance(pending, PendingWrite) or pending.resolved:
            return False
        pending.thread = get_ident()
        scope.settle(key)
        tracker.pop_write_status()  # which the answer includes
        return True

    def ask(self, scope: Scope | None, tracker: WriteTracker, since: Position | None) -> None:
        """Ask the master whether something was written since, and record it if so."""
        status: Position | Written = Written.YES
        try:
            if not (tracker.owes_results or tracker.streams):  # else the write counts (S6)
                status = tracker.ask(since)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
        except Exception as error:  # noqa: BLE001 - the driver's own, whichever it is: the write counts
            logger.info("The master did not say what was written: %s", error)
        if self._master_loss.lasts and not isinstance(status, Written):
            # Where it tells of other sessions, the first answer to a connection says nothing about this one.
            self._master_loss.wrote(certain=since is not None or not tracker.tells_of_others)
        self.record_in(scope, status)

    def record_in(self, scope: Scope | None, status: Position | Written) -> None:
        """Record in a scope what is known of its writes; outside any, in the requests that may wait for them."""
        if status is not Written.NO:
            for each in waiting() if scope is None else (scope,):
                each.record(self._name, None if isinstance(status, Written) else status)
