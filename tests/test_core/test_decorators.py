"""use_master and use_slave on functions, coroutine functions and generators of both kinds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from replswitch import MASTER, SLAVE, ConfigurationError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

switch = Switch()


class TestFunctions:
    def test_the_decorators_work_with_and_without_parentheses(self) -> None:
        @use_slave
        def bare() -> str:
            return switch.state

        @use_slave()
        def called() -> str:
            return switch.state

        assert (bare(), called()) == (SLAVE, SLAVE)
        assert stack() is None

    def test_a_decorated_function_keeps_its_name_and_kind(self) -> None:
        @use_slave
        def documented(number: int) -> int:
            """Say it."""
            return number + 1

        assert documented(1) == 2
        assert (documented.__name__, documented.__doc__) == ("documented", "Say it.")

    def test_one_decorator_serves_nested_and_recursive_calls(self) -> None:
        decorator = use_slave()

        @decorator
        def countdown(number: int) -> list[str]:
            with use_master():
                inside = switch.state
            return [inside, switch.state, *(countdown(number - 1) if number else [])]

        assert countdown(2) == [MASTER, SLAVE] * 3
        assert stack() is None

    def test_an_exception_in_a_decorated_function_restores_the_state_outside(self) -> None:
        # django-replicated: after an exception in a decorated view a POST continues in slave state.
        @use_slave
        def fail() -> None:
            raise ZeroDivisionError

        with use_master(), use_slave(), use_master():
            with pytest.raises(ZeroDivisionError):
                fail()
            assert switch.state == MASTER

    def test_methods_and_static_methods_can_be_decorated(self) -> None:
        class View:
            @use_slave
            def get(self) -> str:
                return switch.state

            @staticmethod
            @use_slave
            def static() -> str:
                return switch.state

        assert (View().get(), View.static()) == (SLAVE, SLAVE)

    def test_one_use_slave_object_serves_several_threads_and_nests_in_itself(self) -> None:
        block = use_slave()

        def work(_: int) -> tuple[str, str, str]:
            with block:
                with block:
                    inner = switch.state
                middle = switch.state
            return inner, middle, switch.state

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(work, range(50))) == {(SLAVE, SLAVE, MASTER)}

    @pytest.mark.parametrize("nonsense", ["view", 3, dict])
    def test_decorating_anything_but_a_function_is_an_error(self, nonsense: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"decorates functions.*with use_master"):
            use_master(nonsense)


class TestUnused:
    @pytest.mark.parametrize("use", [use_master, use_slave], ids=["use_master", "use_slave"])
    def test_a_line_that_only_calls_it_warns_and_names_the_line(self, use: Any) -> None:
        with pytest.warns(RuntimeWarning, match=f"{use.__name__}\\(\\) alone has no effect. Write `with ") as caught:
            use()
        assert [warning.filename for warning in caught] == [__file__]
        assert switch.state == MASTER

    def test_an_object_that_was_entered_or_has_decorated_does_not_warn(self) -> None:
        with use_slave():
            pass

        @use_slave()
        def decorated() -> None: ...

        with pytest.raises(ConfigurationError):
            use_slave()(1)  # type: ignore[arg-type]  # not a function


class TestCoroutines:
    def test_s3_a_decorated_coroutine_keeps_its_state_across_awaits_in_its_own_task_only(self) -> None:
        @use_slave
        async def read() -> tuple[str, str]:
            before = switch.state
            await asyncio.sleep(0)
            return before, switch.state

        async def main() -> None:
            task = asyncio.create_task(read())
            await asyncio.sleep(0)
            assert switch.state == MASTER
            assert await task == (SLAVE, SLAVE)
            assert await read() == (SLAVE, SLAVE)
            assert switch.state == MASTER

        assert inspect.iscoroutinefunction(read)
        asyncio.run(main())


class TestGenerators:
    def test_s9_a_suspended_generator_does_not_switch_its_caller(self) -> None:
        @use_slave
        def rows() -> Generator[str, None, None]:
            yield switch.state
            yield switch.state

        seen = [(state, switch.state) for state in rows()]
        assert seen == [(SLAVE, MASTER)] * 2
        assert inspect.isgeneratorfunction(rows)

    def test_two_interleaved_generators_keep_their_own_states(self) -> None:
        @use_slave
        def reads() -> Generator[str, None, None]:
            while True:
                yield switch.state

        @use_master
        def writes() -> Generator[str, None, None]:
            while True:
                yield switch.state

        one, two = reads(), writes()
        with use_slave():
            assert [next(one), next(two), next(one), next(two), switch.state] == [SLAVE, MASTER] * 2 + [SLAVE]
        one.close()
        two.close()

    def test_s9_a_block_in_a_generator_holds_across_its_yields_and_not_in_the_caller(self) -> None:
        @use_slave
        def steps() -> Generator[str, None, None]:
            with switch.use_master():
                yield switch.state
                yield switch.state
            yield switch.state

        generator = steps()
        seen = []
        for state in generator:
            seen.append(state)
            assert switch.state == MASTER
            assert stack() is None
        assert seen == [MASTER, MASTER, SLAVE]

    def test_a_decorated_generator_passes_send_throw_close_and_its_return_value(self) -> None:
        log: list[tuple[str, str]] = []

        @use_slave
        def echo() -> Generator[object, object, str]:
            try:
                got = yield "ready"
                log.append((str(got), switch.state))
                try:
                    yield "again"
                except ZeroDivisionError:
                    log.append(("thrown", switch.state))
                    yield "caught"
                return "done"
            finally:
                log.append(("closed", switch.state))

        generator = echo()
        assert next(generator) == "ready"
        assert generator.send("hello") == "again"
        assert generator.throw(ZeroDivisionError()) == "caught"
        with pytest.raises(StopIteration) as stopped:
            next(generator)
        assert stopped.value.value == "done"
        assert log == [("hello", SLAVE), ("thrown", SLAVE), ("closed", SLAVE)]

        log.clear()
        generator = echo()
        next(generator)
        generator.close()
        assert log == [("closed", SLAVE)]
        assert stack() is None

    def test_the_scope_of_a_decorated_generator_ends_with_the_generator(self) -> None:
        scopes = []

        @use_slave
        def steps() -> Generator[None, None, None]:
            frame = stack()
            assert frame is not None
            scopes.append(frame.scope)
            yield
            yield

        generator = steps()
        next(generator)
        assert not scopes[0].ended
        generator.close()
        assert scopes[0].ended

    def test_a_decorated_generator_keeps_its_state_in_another_thread(self) -> None:
        @use_slave
        def rows() -> Generator[str, None, None]:
            yield switch.state
            yield switch.state

        generator = rows()
        assert next(generator) == SLAVE
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(next, generator).result() == SLAVE
            assert pool.submit(lambda: switch.state).result() == MASTER


class TestAsyncGenerators:
    def test_s9_a_suspended_async_generator_does_not_switch_its_caller(self) -> None:
        log: list[str] = []

        @use_slave
        async def rows() -> AsyncGenerator[str, Any]:
            try:
                got = yield switch.state
                log.append(str(got))
                await asyncio.sleep(0)
                try:
                    yield switch.state
                except ZeroDivisionError:
                    yield f"caught {switch.state}"
            finally:
                log.append(f"closed {switch.state}")

        async def main() -> None:
            generator = rows()
            assert await anext(generator) == SLAVE
            assert switch.state == MASTER
            assert await generator.asend("hello") == SLAVE
            assert await generator.athrow(ZeroDivisionError()) == f"caught {SLAVE}"
            assert switch.state == MASTER
            with pytest.raises(StopAsyncIteration):
                await anext(generator)
            generator = rows()
            await anext(generator)
            await generator.aclose()
            assert [state async for state in rows()] == [SLAVE, SLAVE]
            assert stack() is None

        assert inspect.isasyncgenfunction(rows)
        asyncio.run(main())
        assert log == ["hello", f"closed {SLAVE}", f"closed {SLAVE}", "None", f"closed {SLAVE}"]
