"""The failure table, row by row, and what must hold for every situation (S5, S7, S8, F1, F3). No server is needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from replswitch.drivers import GONE, Fault
from replswitch.engine.failure import (
    TABLE,
    Action,
    Effect,
    OnMaster,
    Progress,
    Role,
    Situation,
    Spare,
    Verdict,
    decide,
)

NONE, RUN, HAS_READ = Progress.NONE, Progress.RUN, Progress.HAS_READ
NOT_RUN, MAY_HAVE_RUN = OnMaster.NOT_RUN, OnMaster.MAY_HAVE_RUN
POSSIBLE, NONE_LEFT = Spare.POSSIBLE, Spare.NONE_LEFT

REFUSED = (Fault.REFUSED, Fault.READ_ONLY)
CONNECTION_LOST = (Fault.UNSENT, Fault.LOST, Fault.TIMED_OUT)


def master(*faults: Fault, **facts: Any) -> list[Situation]:
    return [Situation(Role.MASTER, fault, **facts) for fault in faults]


def master_read_only(*faults: Fault, **facts: Any) -> list[Situation]:
    return [Situation(Role.MASTER_READ_ONLY, fault, **facts) for fault in faults]


def slave(*faults: Fault, **facts: Any) -> list[Situation]:
    return [Situation(Role.SLAVE, fault, **facts) for fault in faults]


LOST_MASTER = Effect.DROP | Effect.MASTER_LOST

EXPECTED: dict[str, tuple[list[Situation], Action, Effect]] = {
    "master: lost by a statement that has lost every slave before": (
        master(*CONNECTION_LOST, exhausted=True, spare=POSSIBLE),
        Action.RAISE,
        Effect.DROP | Effect.MAY_HAVE_WRITTEN | Effect.END,
    ),
    "master: a statement that was not sent is tried once more": (
        master(Fault.UNSENT, Fault.FULL, spare=POSSIBLE),
        Action.CHOOSE,
        LOST_MASTER,
    ),
    "master: read-only, tried once more on a new connection": (master(Fault.READ_ONLY), Action.CHOOSE, LOST_MASTER),
    "master: read-only again": (
        master(Fault.READ_ONLY, first=False),
        Action.MASTER_IS_READ_ONLY,
        LOST_MASTER | Effect.END,
    ),
    "master: read-only in a transaction": (
        master(Fault.READ_ONLY, transaction=RUN),
        Action.MASTER_IS_READ_ONLY,
        LOST_MASTER | Effect.END,
    ),
    "master: lost in a transaction": (
        master(*GONE, transaction=RUN),
        Action.RAISE,
        LOST_MASTER | Effect.MAY_HAVE_WRITTEN | Effect.END,
    ),
    "master: lost, and the code wants a slave": (master(Fault.LOST, spare=POSSIBLE), Action.SPARE, LOST_MASTER),
    "master: lost, and no server is left": (
        master(Fault.LOST, spare=NONE_LEFT),
        Action.NO_MASTER,
        LOST_MASTER | Effect.MAY_HAVE_WRITTEN,
    ),
    "master: lost, and the code wants the master": (
        master(Fault.LOST, Fault.DOWN, Fault.TIMED_OUT),
        Action.RAISE,
        LOST_MASTER | Effect.MAY_HAVE_WRITTEN,
    ),
    "master: a statement that was not sent twice": (
        master(Fault.UNSENT, first=False),
        Action.RAISE,
        LOST_MASTER | Effect.MAY_HAVE_WRITTEN,
    ),
    "master: rolled the transaction back": (
        master(Fault.DEADLOCK, Fault.ROLLED_BACK, transaction=RUN) + master(Fault.DEADLOCK, Fault.ROLLED_BACK),
        Action.RAISE,
        Effect.END,
    ),
    "master: the application's own error": (
        master(Fault.OTHER, Fault.CONFLICT, Fault.UNDEFINED),
        Action.RAISE,
        Effect.NONE,
    ),
    "read-only master: a write moves": (master_read_only(*REFUSED), Action.MOVE, Effect.NONE),
    "read-only master: a write may not move": (master_read_only(*REFUSED, may_move=False), Action.REFUSE, Effect.NONE),
    "read-only master: lost": (master_read_only(*GONE, spare=POSSIBLE), Action.SPARE, LOST_MASTER),
    "read-only master: lost, and no server is left": (master_read_only(*GONE), Action.NO_MASTER, LOST_MASTER),
    "read-only master: slow": (master_read_only(Fault.SLOW, spare=POSSIBLE), Action.RAISE, Effect.DROP),
    "read-only master: the application's own error": (master_read_only(Fault.OTHER), Action.RAISE, Effect.NONE),
    "slave: refuses a write that may have run on the master": (
        slave(*REFUSED, on_master=MAY_HAVE_RUN),
        Action.LOST_WRITE,
        Effect.MAY_HAVE_WRITTEN,
    ),
    "slave: refuses a write, and the master is gone": (
        slave(*REFUSED, on_master=NOT_RUN),
        Action.NO_MASTER,
        Effect.NONE,
    ),
    "slave: refuses a write that may not move": (slave(*REFUSED, may_move=False), Action.REFUSE, Effect.NONE),
    "slave: refuses a write after reads": (slave(*REFUSED, transaction=HAS_READ), Action.REFUSE, Effect.NONE),
    "slave: refuses a write after reads, with on_slave_write force": (
        slave(*REFUSED, transaction=HAS_READ, force=True),
        Action.MOVE,
        Effect.NONE,
    ),
    "slave: refuses a write": (slave(*REFUSED), Action.MOVE, Effect.NONE),
    "slave: refuses a write when every server has failed": (slave(*REFUSED, exhausted=True), Action.MOVE, Effect.NONE),
    "slave: lost after reads": (
        slave(*CONNECTION_LOST, transaction=HAS_READ),
        Action.RAISE,
        Effect.DROP | Effect.END,
    ),
    "slave: says after reads that it is down": (
        slave(Fault.DOWN, Fault.FULL, transaction=HAS_READ),
        Action.RAISE,
        Effect.DROP | Effect.REST | Effect.AVOID | Effect.END,
    ),
    "slave: rolled back after reads": (
        slave(Fault.DEADLOCK, Fault.ROLLED_BACK, transaction=HAS_READ),
        Action.RAISE,
        Effect.END,
    ),
    "slave: a conflict after reads": (slave(Fault.CONFLICT, transaction=HAS_READ), Action.RAISE, Effect.NONE),
    "slave: slow in a transaction": (
        slave(Fault.SLOW, transaction=RUN),
        Action.RAISE,
        Effect.DROP | Effect.END,
    ),
    "slave: slow": (slave(Fault.SLOW), Action.RAISE, Effect.DROP),
    "slave: lost again, and the master is gone": (
        slave(*GONE, on_master=NOT_RUN, exhausted=True, spare=POSSIBLE),
        Action.NO_MASTER,
        Effect.DROP,
    ),
    "slave: lost again, and the statement may have run on the master": (
        slave(*GONE, on_master=MAY_HAVE_RUN, exhausted=True, spare=POSSIBLE),
        Action.NO_MASTER,
        Effect.DROP | Effect.MAY_HAVE_WRITTEN,
    ),
    "slave: lost on every server": (
        slave(*GONE, exhausted=True),
        Action.RAISE,
        Effect.DROP | Effect.END,
    ),
    "slave: a conflict on every server": (slave(Fault.CONFLICT, exhausted=True), Action.RAISE, Effect.NONE),
    "slave: lost, without a master": (
        slave(*CONNECTION_LOST, on_master=NOT_RUN, spare=POSSIBLE),
        Action.SPARE,
        Effect.DROP,
    ),
    "slave: says that it is down, without a master": (
        slave(Fault.DOWN, on_master=MAY_HAVE_RUN, spare=POSSIBLE),
        Action.SPARE,
        Effect.DROP | Effect.REST | Effect.AVOID,
    ),
    "slave: a conflict, without a master": (
        slave(Fault.CONFLICT, on_master=NOT_RUN, spare=POSSIBLE),
        Action.SPARE,
        Effect.AVOID,
    ),
    "slave: the last slave fails, and the master is gone": (
        slave(Fault.LOST, Fault.CONFLICT, on_master=NOT_RUN, spare=NONE_LEFT),
        Action.NO_MASTER,
        Effect.DROP,
    ),
    "slave: the last slave fails, and the statement may have run on the master": (
        slave(Fault.LOST, Fault.CONFLICT, on_master=MAY_HAVE_RUN, spare=NONE_LEFT),
        Action.NO_MASTER,
        Effect.DROP | Effect.MAY_HAVE_WRITTEN,
    ),
    "slave: lost, so a new connection is tried": (
        slave(*CONNECTION_LOST) + slave(*CONNECTION_LOST, transaction=RUN),
        Action.CHOOSE,
        Effect.DROP,
    ),
    "slave: lost again, so another slave is tried": (
        slave(*CONNECTION_LOST, again=True),
        Action.CHOOSE,
        Effect.DROP | Effect.AVOID,
    ),
    "slave: says that it is down": (
        slave(Fault.DOWN, Fault.FULL),
        Action.CHOOSE,
        Effect.DROP | Effect.REST | Effect.AVOID,
    ),
    "slave: a conflict with replication": (slave(Fault.CONFLICT, Fault.DEADLOCK), Action.CHOOSE, Effect.AVOID),
    "slave: lacks a table": (slave(Fault.UNDEFINED), Action.READ_ON_MASTER, Effect.NONE),
    "slave: lacks a table, in a transaction": (slave(Fault.UNDEFINED, transaction=RUN), Action.RAISE, Effect.NONE),
    "slave: rolled back": (slave(Fault.ROLLED_BACK, transaction=RUN), Action.RAISE, Effect.END),
    "slave: the application's own error": (
        slave(Fault.OTHER) + slave(Fault.OTHER, transaction=HAS_READ),
        Action.RAISE,
        Effect.NONE,
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_the_action_and_the_effects_after_a_failure(case: str) -> None:
    situations, action, effect = EXPECTED[case]
    for situation in situations:
        assert decide(situation) == Verdict(action, effect)


def test_every_row_of_the_table_is_tested() -> None:
    reached = {id(next(row for row in TABLE if row.matches(each))) for cases, *_ in EXPECTED.values() for each in cases}
    assert [row for row in TABLE if id(row) not in reached] == []


ALL = [
    Situation(*facts)
    for facts in product(
        Role,
        Fault,
        Progress,
        OnMaster,
        Spare,
        (True, False),
        (True, False),
        (True, False),
        (True, False),
        (True, False),
    )
]


def test_every_situation_has_a_decision() -> None:
    assert {type(decide(situation)) for situation in ALL} == {Verdict}


AGAIN = {Action.CHOOSE, Action.MOVE, Action.READ_ON_MASTER}
"""The actions after which the master may run the statement."""


def test_a_statement_that_may_have_run_on_the_master_does_not_run_again_on_the_master() -> None:
    may_have_run = {Fault.LOST, Fault.TIMED_OUT, Fault.DOWN, Fault.SLOW, Fault.OTHER}
    for situation in ALL:
        if situation.role is Role.MASTER and situation.fault in may_have_run:
            assert decide(situation).action not in AGAIN, situation
        if situation.role is Role.SLAVE and situation.on_master is MAY_HAVE_RUN and situation.fault in REFUSED:
            assert decide(situation).action not in AGAIN, situation


def test_a_lost_statement_on_the_master_is_recorded_unless_a_read_runs_again_on_another_server() -> None:
    for situation in ALL:
        if situation.role is Role.MASTER and situation.fault is Fault.LOST:
            verdict = decide(situation)
            assert (Effect.MAY_HAVE_WRITTEN in verdict.effect) != (verdict.action is Action.SPARE), situation


def test_m1_a_write_that_may_have_run_on_the_master_is_recorded_when_a_slave_fails_last() -> None:
    for situation in ALL:
        if situation.role is Role.SLAVE and situation.on_master is MAY_HAVE_RUN:
            verdict = decide(situation)
            assert (
                verdict.action is Action.SPARE
                or verdict.effect & Effect.MAY_HAVE_WRITTEN
                or (verdict.action in {Action.CHOOSE, Action.READ_ON_MASTER})
            ), situation


def test_s8_a_transaction_that_has_read_from_a_slave_moves_only_if_forced() -> None:
    for situation in ALL:
        if situation.role is Role.SLAVE and situation.transaction is HAS_READ:
            action = decide(situation).action
            assert action not in AGAIN | {Action.SPARE} or (action is Action.MOVE and situation.force), situation


def test_a_transaction_ends_if_its_connection_is_gone() -> None:
    for situation in ALL:
        if situation.fault in GONE and situation.transaction is not NONE:
            verdict = decide(situation)
            assert Effect.END in verdict.effect or verdict.action is not Action.RAISE, situation


def test_f1_an_error_of_the_statement_takes_no_server_out_of_rotation() -> None:
    for situation in ALL:
        if situation.fault in {Fault.OTHER, Fault.UNDEFINED, Fault.REFUSED}:
            assert not decide(situation).effect & (LOST_MASTER | Effect.REST | Effect.AVOID), situation


def test_only_a_server_that_is_gone_leaves_rotation() -> None:
    for situation in ALL:
        if Effect.REST in decide(situation).effect:
            assert situation.fault in {Fault.DOWN, Fault.FULL}, situation


def test_another_server_is_tried_only_if_another_server_is_left() -> None:
    for situation in ALL:
        if decide(situation).action is Action.SPARE:
            assert situation.spare is POSSIBLE, situation
            assert decide(replace(situation, spare=NONE_LEFT)).action is Action.NO_MASTER, situation


def test_the_master_counts_as_lost_only_after_a_failure_on_a_link_to_the_master() -> None:
    for situation in ALL:
        if Effect.MASTER_LOST in decide(situation).effect:
            assert situation.role is not Role.SLAVE, situation
