"""``use_master`` and ``use_slave``: switch every database for a function, a generator, a coroutine, or a block.

::

    @use_slave
    def report(): ...

    with use_master():
        ...
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from replswitch.decision import MASTER, SLAVE, State
from replswitch.errors import ConfigurationError
from replswitch.state import Block, Resumable, block, instruction, push, stack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")


@overload
def use_master() -> Use: ...
@overload
def use_master(function: Callable[P, R]) -> Callable[P, R]: ...
def use_master(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use the master for every database, as a decorator or in a ``with`` block.

    As ``@use_master``, ``@use_master()`` and ``with use_master():``, on functions, coroutine functions and generators.

    A generator is in master state whenever it runs, and its caller is not while it rests.

    Raises:
        ConfigurationError: what is decorated is no function.
    """
    return Use(MASTER) if function is None else Use(MASTER)(function)


@overload
def use_slave() -> Use: ...
@overload
def use_slave(function: Callable[P, R]) -> Callable[P, R]: ...
def use_slave(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use a slave for every database, as a decorator or in a ``with`` block.

    As ``@use_slave``, ``@use_slave()`` and ``with use_slave():``, on functions, coroutine functions and generators.

    A generator is in slave state whenever it runs, and its caller is not while it rests.

    Raises:
        ConfigurationError: what is decorated is no function.
    """
    return Use(SLAVE) if function is None else Use(SLAVE)(function)


class Use:
    """Switches every database to one state. May be entered again while it is entered, and by several threads.

    Attributes:
        state: that state.
    """

    def __init__(self, state: State) -> None:
        self.state: Final = state

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, a coroutine function, a generator function or an asynchronous one."""
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(
                f"use_{self.state} decorates functions, and {function!r} is none. Decorate the methods that need it, "
                f"or write `with use_{self.state}():`."
            )
        wrapper: Any
        if inspect.isasyncgenfunction(function):
            wrapper = self._async_generator(function)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapper = self._coroutine(function)
        else:
            wrapper = self._function(function)
        return functools.wraps(function)(wrapper)

    def __enter__(self) -> None:
        push(block(self.state, by=self))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        frame = stack()
        while frame is not None:
            if isinstance(frame, Block) and frame.by is self:
                frame.__exit__(kind, error, traceback)
                return
            frame = frame.parent

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with push(instruction(self.state)):
                return function(*args, **kwargs)

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with push(instruction(self.state)):
                return await function(*args, **kwargs)

        return wrapper

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step = functools.partial(next, generator)
            running = Resumable(instruction(self.state))
            try:
                while True:
                    with running:
                        try:
                            item = step()
                        except StopIteration as stop:
                            return stop.value
                    try:
                        step = functools.partial(generator.send, (yield item))
                    except GeneratorExit:
                        with running:
                            generator.close()
                        raise
                    except BaseException as error:  # noqa: BLE001 - whatever was thrown in is the generator's
                        step = functools.partial(generator.throw, error)
            finally:
                running.end()

        return wrapper

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            step = generator.__anext__
            running = Resumable(instruction(self.state))
            try:
                while True:
                    with running:
                        try:
                            item = await step()
                        except StopAsyncIteration:
                            return
                    try:
                        step = functools.partial(generator.asend, (yield item))
                    except GeneratorExit:
                        with running:
                            await generator.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001 - whatever was thrown in is the generator's
                        step = functools.partial(generator.athrow, error)
            finally:
                running.end()

        return wrapper
