"""Choose the server of a transaction's first statement in the simple cases, for which no `Route` is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.block import Block
from replswitch.engine.choose import choose_slave
from replswitch.engine.database import ROLLOUT
from replswitch.engine.recording import is_recording

if TYPE_CHECKING:
    from replswitch.decision import State
    from replswitch.engine.database import Database
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link
    from replswitch.scope import Scope
    from replswitch.state import Frame

# A transaction that no link has joined.
_NO_LINKS: Final = Block()


def first_choice(
    database: Database, frame: Frame | None, scope: Scope, port: Port, *, may_read: bool
) -> tuple[State, str, Link | None] | None:
    """Choose the server of a transaction's first statement. The link joins the transaction later.

    In master state, the choice is always the master, even if it could not be reached a moment ago.

    Args:
        database: the database.
        frame: the top frame of the stack of instructions; None if no instruction is in force.
        scope: the scope of the frame.
        port: opens the link to a slave.
        may_read: the statement may run on a slave, to which a link may be opened now.

    Returns:
        the state, the reason, and the link to a slave, which is None for the master. None if a `Route` must choose, for
        example because the scope must see a write.

    Raises:
        ReplSwitchError: see `Database.side`.
    """
    asks_for_slave = frame is not None and frame.state == SLAVE
    if asks_for_slave:
        needs_route = scope.pending or scope.must_see or scope.held_back or scope.avoided or port.one_link
        if needs_route or not may_read or database.rotation.resting:
            return None
    elif scope.pending and not is_recording():
        return None
    side, why = database.side(frame, scope, _NO_LINKS)
    if side == MASTER:
        return None if why == ROLLOUT else (MASTER, why, None)
    link = choose_slave(scope, database.key, None, database.rotation, 0, port) if asks_for_slave else None
    return None if link is None else (SLAVE, why, link)
