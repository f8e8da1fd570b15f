"""`unrecorded` as a block and as a decorator (M1)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from replswitch import ConfigurationError, unrecorded
from replswitch.engine.recording import is_recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def test_m1_nothing_is_recorded_in_an_unrecorded_block_that_is_entered_twice() -> None:
    block = unrecorded()
    with block, block:
        assert not is_recording()
    assert is_recording()


def test_m1_writes_of_a_function_decorated_with_unrecorded_are_not_recorded() -> None:
    @unrecorded()
    def count(depth: int) -> list[bool]:
        """Count."""
        return [is_recording(), *(count(depth - 1) if depth else [])]

    assert count(2) == [False] * 3
    assert count.__doc__ == "Count."
    assert is_recording()


def test_m1_writes_of_a_coroutine_function_decorated_with_unrecorded_are_not_recorded() -> None:
    @unrecorded()
    async def count() -> bool:
        await asyncio.sleep(0)
        return is_recording()

    async def both() -> list[bool]:
        return [*(await asyncio.gather(count(), count())), is_recording()]

    assert asyncio.run(both()) == [False, False, True]


def test_m1_a_function_decorated_with_unrecorded_may_run_in_several_threads_at_once() -> None:
    inside = threading.Barrier(2)
    seen: list[bool] = []

    @unrecorded()
    def count() -> None:
        inside.wait(5)
        seen.append(is_recording())
        inside.wait(5)

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False, False]


def test_m1_unrecorded_refuses_to_decorate_a_generator_function_and_says_what_to_do() -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def arows() -> AsyncIterator[int]:
        yield 1

    for function in (rows, arows):
        with pytest.raises(ConfigurationError, match=r"with unrecorded\(\):"):
            unrecorded()(function)
