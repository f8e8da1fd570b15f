"""The stack of states: rules S1 to S4."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from replswitch import MASTER, SLAVE, RevertError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.scope import Scope
from replswitch.state import instruction, push, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager


def test_s1_without_a_switch_the_state_is_master() -> None:
    assert Switch().state == MASTER


def test_s2_a_use_call_takes_effect_at_once_and_revert_undoes_the_call() -> None:
    switch = Switch()
    switch.use_slave()
    assert switch.state == SLAVE
    switch.use_master()
    assert switch.state == MASTER
    switch.revert()
    assert switch.state == SLAVE
    switch.revert()
    assert switch.state == MASTER
    assert stack() is None


def test_s2_nested_blocks_restore_the_state_outside() -> None:
    # django-multidb-router: nested `with use_primary_db` leaves the thread on the master permanently.
    switch = Switch()
    with switch.use_slave():
        with switch.use_master(), switch.use_master():
            assert switch.state == MASTER
        assert switch.state == SLAVE
    assert stack() is None


def test_s2_leaving_a_block_drops_unbalanced_calls_inside() -> None:
    switch = Switch()
    with switch.use_slave():
        switch.use_master()
        switch.use_master()
    assert stack() is None


def test_s2_leaving_a_block_restores_the_state_of_an_outer_call_that_was_reverted_inside() -> None:
    switch = Switch()
    switch.use_slave()
    with switch.use_master():
        switch.revert()
        switch.revert()
        assert switch.state == MASTER
        assert stack() is None
    assert switch.state == SLAVE
    switch.revert()


def test_s2_an_exception_in_a_block_restores_the_state_outside() -> None:
    switch = Switch()
    with pytest.raises(ZeroDivisionError), switch.use_slave():
        raise ZeroDivisionError
    assert stack() is None


def test_s2_revert_with_nothing_to_undo_raises_revert_error() -> None:
    switch, other = Switch(), Switch()
    other.use_slave()
    with pytest.raises(RevertError, match=r"found nothing to undo.*Call revert\(\) once for each"):
        switch.revert()
    other.revert()


def test_s4_a_switch_changes_one_database_and_a_decorator_changes_all() -> None:
    one, two = Switch(), Switch()
    with one.use_slave():
        assert (one.state, two.state) == (SLAVE, MASTER)
        with use_slave():
            assert (one.state, two.state) == (SLAVE, SLAVE)
            with one.use_master():
                assert (one.state, two.state) == (MASTER, SLAVE)
        assert (one.state, two.state) == (SLAVE, MASTER)


def test_s2_revert_undoes_its_own_call_below_one_of_another_database() -> None:
    one, two = Switch(), Switch()
    one.use_slave()
    two.use_slave()
    one.revert()
    assert (one.state, two.state) == (MASTER, SLAVE)
    two.revert()
    assert stack() is None


def test_s2_revert_does_not_undo_a_block_of_a_decorator() -> None:
    switch = Switch()
    with use_slave():
        with pytest.raises(RevertError):
            switch.revert()
        assert switch.state == SLAVE


def test_s2_a_use_master_block_restores_the_state_of_a_call_that_was_reverted_inside() -> None:
    switch = Switch()
    switch.use_slave()
    with use_master():
        switch.revert()
        assert switch.state == MASTER
    assert switch.state == SLAVE
    switch.revert()
    assert stack() is None


class TestDisabled:
    def test_while_disabled_instructions_are_ignored_and_reverts_stay_balanced(self) -> None:
        switch = Switch()
        switch.state_change_disabled = True
        assert switch.state_change_disabled
        switch.use_slave()
        with switch.use_slave(), use_slave():
            assert switch.state == MASTER
        switch.revert()
        with pytest.raises(RevertError):
            switch.revert()
        switch.state_change_disabled = False
        assert not switch.state_change_disabled
        with switch.use_slave():
            assert switch.state == SLAVE

    def test_the_state_from_before_state_change_disabled_stays(self) -> None:
        switch = Switch()
        with switch.use_slave():
            switch.state_change_disabled = True
            with switch.use_master():
                assert switch.state == SLAVE
            switch.state_change_disabled = False

    def test_an_instruction_ignored_while_disabled_stays_ignored(self) -> None:
        switch = Switch()
        switch.state_change_disabled = True
        with switch.use_slave():
            switch.state_change_disabled = False
            assert switch.state == MASTER

    def test_state_change_disabled_does_not_affect_other_switches(self) -> None:
        switch, other = Switch(), Switch()
        switch.state_change_disabled = True
        with use_slave():
            assert (switch.state, other.state) == (MASTER, SLAVE)
        switch.state_change_disabled = False

    def test_revert_under_an_ignored_instruction_keeps_it_ignored(self) -> None:
        switch, other = Switch(), Switch()
        other.use_slave()
        switch.state_change_disabled = True
        switch.use_slave()
        switch.state_change_disabled = False
        other.revert()
        assert switch.state == MASTER
        switch.revert()
        assert stack() is None


class TestWhoseState:
    def test_s3_a_thread_begins_in_master_state(self) -> None:
        switch = Switch()
        with switch.use_slave(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: switch.state).result() == MASTER

    def test_s3_a_thread_does_not_change_the_state_of_another(self) -> None:
        switch = Switch()
        inside, leave = threading.Event(), threading.Event()

        def work() -> None:
            with switch.use_slave():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(10)
        assert switch.state == MASTER
        leave.set()
        thread.join()

    def test_s3_a_child_task_starts_with_a_copy_and_does_not_change_its_parent(self) -> None:
        switch = Switch()

        async def child() -> str:
            before = switch.state
            switch.use_master()
            await asyncio.sleep(0)
            return before

        async def parent() -> None:
            with switch.use_slave():
                assert set(await asyncio.gather(child(), child())) == {SLAVE}
                assert switch.state == SLAVE

        asyncio.run(parent())

    def test_s2_revert_does_not_undo_calls_outside_the_request(self) -> None:
        switch = Switch()
        with switch.use_slave():
            with push(instruction(MASTER, Scope())):
                assert switch.state == MASTER
                with pytest.raises(RevertError):
                    switch.revert()
            assert switch.state == SLAVE


@pytest.mark.parametrize("use", [Switch().use_slave, use_slave], ids=["of one database", "of every database"])
def test_s3_a_block_in_an_abandoned_generator_does_not_change_the_stack_of_the_code_that_runs_when_it_is_closed(
    use: Callable[[], AbstractContextManager[object]],
) -> None:
    def rows() -> Generator[int]:
        with use():
            yield 1

    abandoned = rows()
    contextvars.copy_context().run(next, abandoned)  # as in another request's task
    switch = Switch()
    with use_slave():
        running = switch.use_master()
        abandoned.close()
        assert stack() is running
    assert stack() is None


def test_s3_an_inner_block_that_is_left_after_its_outer_block_does_not_restore_the_outer_state() -> None:
    outer, inner = Switch().use_slave(), Switch().use_master()
    outer.__exit__()
    inner.__exit__()
    assert stack() is None


class TestScopes:
    """Outside a request, the outermost use_*() … revert() is a scope."""

    def test_a_scope_begins_with_the_outermost_block_and_is_shared_inside(self) -> None:
        one, two = Switch(), Switch()
        with one.use_slave() as outer, two.use_master() as inner:
            assert outer.scope is inner.scope
        assert outer.scope.ended

    def test_a_scope_lasts_while_any_of_its_blocks_is_open(self) -> None:
        one, two = Switch(), Switch()
        scope = one.use_slave().scope
        two.use_slave()
        one.revert()
        assert not scope.ended
        two.revert()
        assert scope.ended

    def test_the_next_outermost_block_has_a_new_scope(self) -> None:
        switch = Switch()
        with switch.use_slave() as first:
            pass
        with switch.use_slave() as second:
            assert second.scope is not first.scope
