"""What happens after a statement has failed: one table, facts in, verdict out. No I/O, no clock, no state.

`decide` returns the verdict of the first row of `TABLE` that matches the situation. The rules: S5, S7, S8, F1, F3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final, NamedTuple

from replswitch.drivers import GONE, Fault


class Role(Enum):
    """What the failed link was there for."""

    MASTER = auto()
    MASTER_READ_ONLY = auto()  # the master serves a read, over a link that refuses writes
    SLAVE = auto()  # a slave, or whichever server reads on without the master


class Progress(Enum):
    """How far the running transaction has come; NONE outside one."""

    NONE = auto()  # nothing has run in it, so it can begin again anywhere
    RUN = auto()  # statements have run, and no rows of a slave were read
    HAS_READ = auto()  # rows of a slave were read, which may be stale for what is written next


class OnMaster(Enum):
    """What became of the same statement on the master before."""

    UNTRIED = auto()
    NOT_RUN = auto()
    MAY_HAVE_RUN = auto()


class Spare(Enum):
    """Whether a server may run a read in the place of a lost master."""

    NOT_ALLOWED = auto()
    POSSIBLE = auto()
    NONE_LEFT = auto()


class Action(Enum):
    """What to do about the statement."""

    CHOOSE = "choose a server anew, and run the statement again"
    SPARE = "run it on any server that has what it must see, without the master"
    MOVE = "run it on the master, which serves the database from now on"
    READ_ON_MASTER = "read once more on the master: the slave lacks a table or a column"
    RAISE = "raise the driver's error"
    REFUSE = "raise SlaveWriteError"
    NO_MASTER = "raise NoServerError: the master cannot be reached"
    MASTER_IS_READ_ONLY = "raise NoServerError: the master is read-only"
    LOST_WRITE = "raise NoServerError: it is not known whether the write was done"


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts.

    Attributes:
        role: what the link was there for.
        fault: what the error means.
        transaction: how far the running transaction has come.
        on_master: what the master did with the same statement before.
        spare: whether a read may go on without the master.
        first: it is one single statement, of which nothing has run, and the master has not failed it before.
        again: the server has lost the connection for a second time.
        exhausted: three slaves have lost it twice, or all of them have failed it.
        may_move: ``on_slave_write`` lets writes move, and the session has nothing that would stay behind.
        force: ``on_slave_write`` is ``"force"``: a write moves even if its transaction has read from the slave.
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
    REST = auto()  # take the server out of rotation; without it, a new connection decides whether it is there (F1)
    AVOID = auto()  # this scope reads no more from the server
    MASTER_LOST = auto()  # count and log that the master does not serve
    MAY_HAVE_WRITTEN = auto()  # record a write whose position is unknown
    END = auto()  # the transaction is over; until its rollback each further statement is an error


class Verdict(NamedTuple):
    """What to do about the statement, and what else."""

    action: Action
    effect: Effect = Effect.NONE


class Row(NamedTuple):
    """One row of the table: for which role and faults, and under which other conditions, a verdict holds.

    The conditions are the values that attributes of `Situation` must have; a set lists several.
    """

    role: Role
    faults: frozenset[Fault]
    verdict: Verdict
    conditions: dict[str, object]

    def matches(self, situation: Situation) -> bool:
        """Say whether the row is about a situation."""
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
    # The master loses what slaves have lost twice: the statement is at fault, and no server is blamed (F1).
    _row(_M, LOST, Action.RAISE, _DROP | _WROTE | _END, exhausted=True),
    # The master. Behind its name there may be another server by now, so what did not run is tried once more.
    _row(_M, UNSENT, Action.CHOOSE, _LOSE, transaction=Progress.NONE, first=True),
    _row(_M, _READ_ONLY, Action.CHOOSE, _LOSE, transaction=Progress.NONE, first=True),
    _row(_M, _READ_ONLY, Action.MASTER_IS_READ_ONLY, _LOSE | _END),
    _row(_M, GONE, Action.RAISE, _LOSE | _WROTE | _END, transaction=_RUNNING),
    _row(_M, GONE, Action.SPARE, _LOSE, spare=Spare.POSSIBLE),
    _row(_M, GONE, Action.NO_MASTER, _LOSE | _WROTE, spare=Spare.NONE_LEFT),
    _row(_M, GONE, Action.RAISE, _LOSE | _WROTE),
    _row(_M, _ROLLED_BACK, Action.RAISE, _END),
    _row(_M, _ANY, Action.RAISE),
    # The master over a link that refuses writes: nothing can have been written.
    _row(_MR, REFUSED, Action.REFUSE, may_move=False),
    _row(_MR, REFUSED, Action.MOVE),
    _row(_MR, GONE, Action.SPARE, _LOSE, spare=Spare.POSSIBLE),
    _row(_MR, GONE, Action.NO_MASTER, _LOSE),
    _row(_MR, _SLOW, Action.RAISE, _DROP),
    _row(_MR, _ANY, Action.RAISE),
    # A slave refuses a write (S8). If the master has failed it before, nothing is left to move it to.
    _row(_S, REFUSED, Action.LOST_WRITE, _WROTE, on_master=_MAY_HAVE_RUN),
    _row(_S, REFUSED, Action.NO_MASTER, on_master=_NOT_RUN),
    _row(_S, REFUSED, Action.REFUSE, may_move=False),
    _row(_S, REFUSED, Action.REFUSE, transaction=_HAS_READ, force=False),
    _row(_S, REFUSED, Action.MOVE),
    # A slave fails a read that belongs to what was read before: nothing else shows the same snapshot.
    _row(_S, LOST, Action.RAISE, _DROP | _END, transaction=_HAS_READ),
    _row(_S, _DOWN, Action.RAISE, _LEAVE | _END, transaction=_HAS_READ),
    _row(_S, _ROLLED_BACK, Action.RAISE, _END, transaction=_HAS_READ),
    _row(_S, _CONFLICT, Action.RAISE, transaction=_HAS_READ),
    # It is there, and only slow: the connection is given up, because its answer may still come.
    _row(_S, _SLOW, Action.RAISE, _DROP | _END, transaction=_RUNNING),
    _row(_S, _SLOW, Action.RAISE, _DROP),
    # Lost twice by three slaves, or failed by all of them: the statement is at fault, and no server is blamed (F1).
    _row(_S, GONE, Action.NO_MASTER, _DROP, on_master=_NOT_RUN, exhausted=True),
    _row(_S, GONE, Action.NO_MASTER, _DROP | _WROTE, on_master=_MAY_HAVE_RUN, exhausted=True),
    _row(_S, GONE, Action.RAISE, _DROP | _END, exhausted=True),
    _row(_S, _ANY, Action.RAISE, exhausted=True),
    # A slave fails a read that may run elsewhere (F1): without the master, if that has failed it before.
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
        effect |= _WROTE  # on whatever server the statement has failed since
    return Verdict(action, effect)
