"""Decide what happens after a statement has failed. A table maps the facts to a verdict, without I/O, clock or state.

`decide` returns the verdict of the first row of `TABLE` that matches the situation. It implements the rules S5, S7, S8,
F1 and F3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final, NamedTuple

from replswitch.drivers import GONE, Fault


class Role(Enum):
    """The purpose of the link that failed."""

    MASTER = auto()
    MASTER_READ_ONLY = auto()  # the master serves a read over a read-only link
    SLAVE = auto()  # a slave, or any server that serves reads after the loss of the master


class Progress(Enum):
    """What has run in the open transaction; NONE outside a transaction."""

    NONE = auto()  # nothing has run in it, so it can begin again on any server
    RUN = auto()  # statements have run, but no rows were read from a slave
    HAS_READ = auto()  # rows were read from a slave; a later write may depend on stale data


class OnMaster(Enum):
    """The result of an earlier try of the same statement on the master."""

    UNTRIED = auto()
    NOT_RUN = auto()
    MAY_HAVE_RUN = auto()


class Spare(Enum):
    """Whether another server can run a read for which the master is lost."""

    NOT_ALLOWED = auto()
    POSSIBLE = auto()
    NONE_LEFT = auto()


class Action(Enum):
    """What to do with the statement."""

    CHOOSE = "choose a server again, and run the statement again"
    SPARE = "run it without the master, on any server that has what the scope must see"
    MOVE = "run it on the master, which serves the database from now on"
    READ_ON_MASTER = "read once more on the master, because the slave lacks a table or a column"
    RAISE = "raise the driver's error"
    REFUSE = "raise SlaveWriteError"
    NO_MASTER = "raise NoServerError, because the master cannot be reached"
    MASTER_IS_READ_ONLY = "raise NoServerError, because the master is read-only"
    LOST_WRITE = "raise NoServerError, because it is not known whether the write was done"


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts about a statement that has failed. `decide` takes them.

    Attributes:
        role: the purpose of the link.
        fault: what the error means.
        transaction: what has run in the open transaction.
        on_master: the result of an earlier try of the same statement on the master.
        spare: whether a read may continue without the master.
        first: it is a single statement, nothing of it has run, and it has not failed on the master before.
        again: the connection to the server was lost more than once during this statement.
        exhausted: no further server may be tried; see `replswitch.engine.attempt.Attempt.is_exhausted`.
        may_move: a refused write may move to the master. ``on_slave_write`` allows it, the binding can run it again,
            and the session on the slave has no changes that would be lost.
        force: a write may move even if its transaction has read from the slave (``on_slave_write`` is ``"force"``).
    """

    role: Role
    fault: Fault
    transaction: Progress = Progress.NONE
    on_master: OnMaster = OnMaster.UNTRIED
    spare: Spare = Spare.NOT_ALLOWED
    first: bool = True
    again: bool = False
    exhausted: bool = False
    may_move: bool = True
    force: bool = False


class Effect(Flag):
    """What else to do after a failure."""

    NONE = 0
    DROP = auto()  # close the link, and the idle ones to the same server
    REST = auto()  # take the server out of rotation; without this, a new connection shows whether it is up (F1)
    AVOID = auto()  # this scope does not read from the server any more
    MASTER_LOST = auto()  # count and log that the master is not available
    MAY_HAVE_WRITTEN = auto()  # record a write whose position is unknown
    END = auto()  # the transaction has ended; until its rollback, every further statement raises an error


class Verdict(NamedTuple):
    """What to do after a failure: with the statement (``action``), and with the server or the scope (``effect``)."""

    action: Action
    effect: Effect = Effect.NONE


class Row(NamedTuple):
    """One row of `TABLE`. Its verdict applies to a situation with this role, one of these faults, and these conditions.

    The conditions are the values that attributes of `Situation` must have; a set lists alternatives.
    """

    role: Role
    faults: frozenset[Fault]
    verdict: Verdict
    conditions: dict[str, object]

    def matches(self, situation: Situation) -> bool:
        """Return whether the row applies to a situation."""
        if situation.role is not self.role or situation.fault not in self.faults:
            return False
        for name, wanted in self.conditions.items():
            value = getattr(situation, name)
            if value not in wanted if isinstance(wanted, frozenset) else value != wanted:
                return False
        return True


def _row(
    role: Role, faults: frozenset[Fault], action: Action, effect: Effect = Effect.NONE, **conditions: object
) -> Row:
    return Row(role, faults, Verdict(action, effect), conditions)


_M, _MR, _S = Role.MASTER, Role.MASTER_READ_ONLY, Role.SLAVE

_ANY: Final = frozenset(Fault)
_READ_ONLY: Final = frozenset({Fault.READ_ONLY})
REFUSED: Final = frozenset({Fault.REFUSED, Fault.READ_ONLY})
UNSENT: Final = frozenset({Fault.UNSENT, Fault.FULL})
LOST: Final = frozenset({Fault.UNSENT, Fault.LOST, Fault.TIMED_OUT})
_DOWN: Final = frozenset({Fault.DOWN, Fault.FULL})
_SLOW: Final = frozenset({Fault.SLOW})
_CONFLICT: Final = frozenset({Fault.CONFLICT, Fault.DEADLOCK})
_ROLLED_BACK: Final = frozenset({Fault.DEADLOCK, Fault.ROLLED_BACK})
_UNDEFINED: Final = frozenset({Fault.UNDEFINED})

_RUNNING: Final = frozenset({Progress.RUN, Progress.HAS_READ})
_NO_ROWS: Final = frozenset({Progress.NONE, Progress.RUN})
_HAS_READ: Final = Progress.HAS_READ
_TRIED: Final = frozenset({OnMaster.NOT_RUN, OnMaster.MAY_HAVE_RUN})
_NOT_RUN, _MAY_HAVE_RUN = OnMaster.NOT_RUN, OnMaster.MAY_HAVE_RUN

_DROP, _END, _WROTE = Effect.DROP, Effect.END, Effect.MAY_HAVE_WRITTEN
_LOSE: Final = Effect.DROP | Effect.MASTER_LOST
_LEAVE: Final = Effect.DROP | Effect.REST | Effect.AVOID

TABLE: Final = (
    # The connection broke twice on a slave, and now on the master, so the statement must be the cause (F1).
    _row(_M, LOST, Action.RAISE, _DROP | _WROTE | _END, exhausted=True),
    # The master. After a failover, its name may point to another server. So retry, once, a statement that did not run.
    _row(_M, UNSENT, Action.CHOOSE, _LOSE, transaction=Progress.NONE, first=True),
    _row(_M, _READ_ONLY, Action.CHOOSE, _LOSE, transaction=Progress.NONE, first=True),
    _row(_M, _READ_ONLY, Action.MASTER_IS_READ_ONLY, _LOSE | _END),
    _row(_M, GONE, Action.RAISE, _LOSE | _WROTE | _END, transaction=_RUNNING),
    _row(_M, GONE, Action.SPARE, _LOSE, spare=Spare.POSSIBLE),
    _row(_M, GONE, Action.NO_MASTER, _LOSE | _WROTE, spare=Spare.NONE_LEFT),
    _row(_M, GONE, Action.RAISE, _LOSE | _WROTE),
    _row(_M, _ROLLED_BACK, Action.RAISE, _END),
    _row(_M, _ANY, Action.RAISE),
    # The master over a read-only link, so nothing can have been written.
    _row(_MR, REFUSED, Action.REFUSE, may_move=False),
    _row(_MR, REFUSED, Action.MOVE),
    _row(_MR, GONE, Action.SPARE, _LOSE, spare=Spare.POSSIBLE),
    _row(_MR, GONE, Action.NO_MASTER, _LOSE),
    _row(_MR, _SLOW, Action.RAISE, _DROP),
    _row(_MR, _ANY, Action.RAISE),
    # A slave refuses a write (S8). If the write has failed on the master before, it cannot move there.
    _row(_S, REFUSED, Action.LOST_WRITE, _WROTE, on_master=_MAY_HAVE_RUN),
    _row(_S, REFUSED, Action.NO_MASTER, on_master=_NOT_RUN),
    _row(_S, REFUSED, Action.REFUSE, may_move=False),
    _row(_S, REFUSED, Action.REFUSE, transaction=_HAS_READ, force=False),
    _row(_S, REFUSED, Action.MOVE),
    # A read fails after earlier reads of the same transaction. It cannot move, as no other server has this snapshot.
    _row(_S, LOST, Action.RAISE, _DROP | _END, transaction=_HAS_READ),
    _row(_S, _DOWN, Action.RAISE, _LEAVE | _END, transaction=_HAS_READ),
    _row(_S, _ROLLED_BACK, Action.RAISE, _END, transaction=_HAS_READ),
    _row(_S, _CONFLICT, Action.RAISE, transaction=_HAS_READ),
    # The slave is up, but slow. Close the connection, because the answer may still arrive on it.
    _row(_S, _SLOW, Action.RAISE, _DROP | _END, transaction=_RUNNING),
    _row(_S, _SLOW, Action.RAISE, _DROP),
    # Connections to three slaves broke twice, or the statement failed on all slaves, so it must be the cause (F1).
    _row(_S, GONE, Action.NO_MASTER, _DROP, on_master=_NOT_RUN, exhausted=True),
    _row(_S, GONE, Action.NO_MASTER, _DROP | _WROTE, on_master=_MAY_HAVE_RUN, exhausted=True),
    _row(_S, GONE, Action.RAISE, _DROP | _END, exhausted=True),
    _row(_S, _ANY, Action.RAISE, exhausted=True),
    # A read fails, but may run on another server (F1). If it has failed on the master before, the master is left out.
    _row(_S, LOST, Action.SPARE, _DROP, on_master=_TRIED, spare=Spare.POSSIBLE),
    _row(_S, _DOWN, Action.SPARE, _LEAVE, on_master=_TRIED, spare=Spare.POSSIBLE),
    _row(_S, _CONFLICT, Action.SPARE, Effect.AVOID, on_master=_TRIED, spare=Spare.POSSIBLE),
    _row(_S, GONE | _CONFLICT, Action.NO_MASTER, _DROP, on_master=_NOT_RUN),
    _row(_S, GONE | _CONFLICT, Action.NO_MASTER, _DROP | _WROTE, on_master=_MAY_HAVE_RUN),
    _row(_S, LOST, Action.CHOOSE, _DROP | Effect.AVOID, transaction=_NO_ROWS, again=True),
    _row(_S, LOST, Action.CHOOSE, _DROP, transaction=_NO_ROWS),
    _row(_S, _DOWN, Action.CHOOSE, _LEAVE, transaction=_NO_ROWS),
    _row(_S, _CONFLICT, Action.CHOOSE, Effect.AVOID, transaction=_NO_ROWS),
    _row(_S, _UNDEFINED, Action.READ_ON_MASTER, transaction=Progress.NONE, on_master=OnMaster.UNTRIED),
    _row(_S, _ROLLED_BACK, Action.RAISE, _END, transaction=_RUNNING),
    _row(_S, _ANY, Action.RAISE),
)


def decide(situation: Situation) -> Verdict:
    """Return what to do after a failure."""
    action, effect = next(row.verdict for row in TABLE if row.matches(situation))
    if action is Action.RAISE and situation.on_master is OnMaster.MAY_HAVE_RUN:
        effect |= _WROTE  # even if the statement has failed on another server since
    return Verdict(action, effect)
