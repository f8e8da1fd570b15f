"""One database as a scope knows it: which side serves it and why, what it wrote, which writes were moved.

This is what every binding that runs statements shares; how links are opened and transactions begun is its own.
"""

from __future__ import annotations

import logging
import random
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn, TypeVar

from replswitch.errors import SlaveWriteError
from replswitch.place import application_place
from replswitch.policy import Decision
from replswitch.state import MASTER, stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.scope import Scope
    from replswitch.state import Frame, State, Switch

logger = logging.getLogger(__name__)

S = TypeVar("S")


# Few are different, and one is noted in each request.
_decision = lru_cache(maxsize=256)(Decision)


class Database:
    """One database.

    Args:
        switch: says which side the running code wants.
        name: what the database is called in scopes; the switch itself by default.
        move_writes: whether a write that a slave refused may run on the master (the option ``on_slave_write``).
    """

    def __init__(self, switch: Switch, name: Hashable = None, *, move_writes: bool = True) -> None:
        self.switch = switch
        self.name = switch if name is None else name
        self.move_writes = move_writes

    def side(self, *, in_master_transaction: bool) -> tuple[State, str | None]:
        """Choose the side of a statement (S4, S5, S8).

        Args:
            in_master_transaction: a transaction is open that the master has joined.

        Returns:
            the side, and the reason if it is another than the state's own.
        """
        if in_master_transaction:
            return MASTER, "transaction"
        frame = stack()
        why = None if frame is None else frame.scope.pinned(self.name)
        return (self.switch.state, None) if why is None else (MASTER, why)

    def note(self, frame: Frame, state: State, server: str, why: str | None) -> str:
        """Write down in the scope which server was chosen, and return the reason for it."""
        reason = why or self._reason(frame)
        frame.scope.recorded = True
        frame.scope.note(_decision(state, reason, server))
        return reason

    def slaves_to_try(self, scope: Scope, slaves: Sequence[S]) -> list[S]:
        """Return the slaves in the order in which a read should try them: the scope's own first (S6).

        Those that have failed in the scope are left out.
        """
        chosen = scope.slave(self.name)
        fit = [slave for slave in slaves if not scope.avoids(self.name, slave)]
        if len(fit) < 2:
            return fit
        random.shuffle(fit)
        return sorted(fit, key=lambda slave: slave is not chosen)

    def lose_slave(self, scope: Scope, server: Hashable, name: str, error: BaseException) -> None:
        """Leave a slave alone that cannot be reached, for the rest of the scope (F1)."""
        logger.warning("The slave %s cannot be reached: %s", name, error)
        scope.avoid_slave(self.name, server)

    def lack_slaves(self, scope: Scope) -> None:
        """Let the master serve the reads of the scope, because no slave can."""
        scope.pin(self.name, "no-slave")

    def record_write(self) -> None:
        """Record in the running scope that a write was committed on the master, or may have been (M1)."""
        frame = stack()
        if frame is not None:
            frame.scope.record(self.name, "own-write")

    def suspect_write(self) -> None:
        """Say that a statement on the master may have written, where its driver does not tell.

        The master serves the rest of the scope. In a request that promises to write nothing the binding finds out
        before the response (`Scope.in_doubt`): every read behind a marker would set another one. Elsewhere it counts.
        """
        frame = stack()
        if frame is None or not (frame.scope.is_safe or frame.scope.answered):
            self.record_write()
        else:
            frame.scope.pin(self.name, "own-write")
            frame.scope.in_doubt = True

    def move_write(
        self, error: BaseException, server: str, *, scope_has_read: bool, transaction_has_read: bool
    ) -> None:
        """Let the master serve the database from now on, because a slave refused a write (S8).

        Args:
            error: what the slave said.
            server: the slave.
            scope_has_read: the scope has read from a slave before.
            transaction_has_read: the open transaction has.

        Raises:
            SlaveWriteError: it may not be moved.
        """
        place = application_place()
        if not self.move_writes:
            self.refuse(error, server, 'on_slave_write is "error"')
        if transaction_has_read:
            self.refuse(error, server, "its transaction has read from the slave, and what it read may be stale")
        frame = stack()
        if frame is not None:
            frame.scope.pin(self.name, "moved-write")
        logger.warning(
            "A write in slave state was moved to the master, at %s. The slave %s had refused it: %s. Before it, this "
            "scope had %s from a slave. Say use_master() there.",
            place,
            server,
            error,
            "read" if scope_has_read else "not read",
        )

    def refuse(self, error: BaseException, server: str, why: str) -> NoReturn:
        """Raise SlaveWriteError for a write that a slave refused."""
        place = application_place()
        raise SlaveWriteError(
            f"A write in slave state, at {place}, was refused by the slave {server} ({error}) and not moved to the "
            f"master: {why}. Say use_master() before the first statement that belongs to the write.",
            server=server,
            place=place,
        ) from error

    def _reason(self, frame: Frame) -> str:
        # Which instruction decided: the request's own, or a use_*() in it.
        decision = frame.scope.decision
        if decision is not None and decision.final:
            return decision.reason
        deciding = self.switch.deciding_frame()
        if deciding is None:
            return "default"
        decision = deciding.scope.decision
        if decision is not None and deciding.switch is None and deciding.begins_scope:
            return decision.reason
        return f"use_{deciding.state}"
