"""Any sequence of use, revert and raise behaves as a plain list does, in every thread and task by itself."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from replswitch import RevertError, State, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

SWITCHES = (Switch(), Switch())
EVERY = {"master": use_master, "slave": use_slave}


class RaisedError(Exception):
    """The error that a program raises on purpose."""


@dataclass(frozen=True)
class Use:
    switch: int
    state: State


@dataclass(frozen=True)
class Revert:
    switch: int


@dataclass(frozen=True)
class Raise:
    pass


@dataclass(frozen=True)
class Block:
    """A `with` block of a switch, or of a decorator where the switch is None; what it raises ends with it."""

    switch: int | None
    state: State
    body: tuple[Any, ...]


@dataclass(frozen=True)
class Call:
    """A call of a decorated function."""

    state: State
    body: tuple[Any, ...]


STATES: st.SearchStrategy[State] = st.sampled_from(("master", "slave"))
INDEXES = st.integers(0, len(SWITCHES) - 1)
SIMPLE = st.one_of(st.builds(Use, INDEXES, STATES), st.builds(Revert, INDEXES), st.builds(Raise))
PROGRAMS = st.recursive(
    st.lists(SIMPLE, max_size=6).map(tuple),
    lambda inner: st.lists(
        st.one_of(
            SIMPLE,
            st.builds(Block, st.one_of(st.none(), INDEXES), STATES, inner),
            st.builds(Call, STATES, inner),
        ),
        max_size=5,
    ).map(tuple),
    max_leaves=12,
)

Model = list[tuple[int | None, State]]


def expected(model: Model, index: int) -> State:
    return next((state for switch, state in reversed(model) if switch in (None, index)), "master")


def execute(program: tuple[Any, ...], model: Model) -> Generator[None, None, None]:
    """Run a program step by step on the real stack and on the model, and compare after each step."""
    for step in program:
        match step:
            case Use(index, state):
                switch = SWITCHES[index]
                switch.use_master() if state == "master" else switch.use_slave()
                model.append((index, state))
            case Revert(index):
                last = next((at for at in range(len(model) - 1, -1, -1) if model[at][0] == index), None)
                try:
                    SWITCHES[index].revert()
                except RevertError:
                    assert last is None
                else:
                    assert last is not None
                    del model[last]
            case Raise():
                raise RaisedError
            case Block(index, state, body):
                before = list(model)
                if index is None:
                    block: Any = EVERY[state]()
                else:
                    block = SWITCHES[index].use_master() if state == "master" else SWITCHES[index].use_slave()
                try:
                    with block:
                        model.append((index, state))
                        yield from execute(body, model)
                except RaisedError:
                    pass
                model[:] = before
            case Call(state, body):
                before = list(model)

                @EVERY[state]
                def called(body: tuple[Any, ...] = body, state: State = state) -> None:
                    model.append((None, state))
                    for _ in execute(body, model):
                        pass

                with contextlib.suppress(RaisedError):
                    called()
                model[:] = before
        for index, switch in enumerate(SWITCHES):
            assert switch.state == expected(model, index)
        yield


def run(program: tuple[Any, ...], between: Callable[[], None]) -> None:
    try:
        for _ in execute(program, []):
            between()
    except RaisedError:
        pass


@given(PROGRAMS)
def test_a_random_sequence_of_switches_matches_the_model(program: tuple[Any, ...]) -> None:
    thread = ThreadPoolExecutor(1)
    with thread:
        thread.submit(run, program, lambda: None).result()
    assert stack() is None


@settings(max_examples=40)
@given(st.lists(PROGRAMS, min_size=2, max_size=4))
def test_random_sequences_of_switches_in_threads_match_the_model(programs: list[tuple[Any, ...]]) -> None:
    turn = threading.Barrier(len(programs))

    def together() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):  # another program is over already
            turn.wait(0.02)

    with ThreadPoolExecutor(len(programs)) as pool:
        # Each in a context of its own, as a thread has: the pool may let one thread run two of them.
        for future in [pool.submit(contextvars.Context().run, run, program, together) for program in programs]:
            future.result()
    assert stack() is None


@settings(max_examples=60)
@given(st.lists(PROGRAMS, min_size=2, max_size=5))
def test_random_sequences_of_switches_in_tasks_match_the_model(programs: list[tuple[Any, ...]]) -> None:
    async def task(program: tuple[Any, ...]) -> None:
        try:
            for _ in execute(program, []):
                await asyncio.sleep(0)
        except RaisedError:
            pass

    async def main() -> None:
        await asyncio.gather(*map(task, programs))
        assert stack() is None

    asyncio.run(main())
    assert stack() is None
