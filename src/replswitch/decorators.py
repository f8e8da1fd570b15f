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
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, overload

from replswitch.decision import MASTER, SLAVE, State
from replswitch.errors import ConfigurationError
from replswitch.state import Block, Resumable, block, instruction, push, stack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from replswitch.state import Frame

P = ParamSpec("P")
R = TypeVar("R")


class Use:
    """Use the master, or a slave, for every database, as a decorator or in a ``with`` block.

    Use it as ``@use_slave``, ``@use_slave()`` or ``with use_slave():``; ``async with`` does the same. It decorates
    functions, coroutine functions and generators. The state of a generator is in force only while its code runs. While
    the generator is suspended, its caller is in the caller's own state. The object is reentrant, and several threads
    may enter it.

    Raises:
        ConfigurationError: the decorated object is not a function.

    Attributes:
        state: ``"master"`` or ``"slave"``.

    Warns:
        RuntimeWarning: the object was neither entered nor called, as in a line that is only ``use_slave()``.
    """

    _is_used = False

    def __init__(self, state: State, reason: str = "") -> None:
        self.state: Final = state
        self._reason = reason  # the reason that decisions give; empty in the application's own blocks

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, a coroutine function, a generator function or an asynchronous generator function."""
        self._is_used = True
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(
                f"use_{self.state} decorates functions, and {function!r} is not a function. Decorate the methods "
                f"that need this state, or write `with use_{self.state}():`."
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
        self._is_used = True
        push(block(self.state, self, self._reason))

    def __exit__(self, *error: object) -> None:
        frame = stack()
        while frame is not None:
            if isinstance(frame, Block) and frame.by is self:
                frame.__exit__(*error)
                return
            frame = frame.parent

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def __del__(self) -> None:
        if not self._is_used and not sys.is_finalizing():
            name = f"use_{self.state}"
            text = f"{name}() alone has no effect. Write `with {name}():`, or decorate a function with @{name}."
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    # Bindings override these methods

    def instruction(self) -> Frame:
        """Make the instruction for a call, but do not put it in force yet."""
        return instruction(self.state)

    def kept(self, answer: Any, frame: Frame) -> Any:
        """Return the result of a decorated call. A binding may override this method, to change the result.

        The instruction of the decorator is still in force during this call.
        """
        return answer

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with push(self.instruction()) as frame:
                return self.kept(function(*args, **kwargs), frame)

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with push(self.instruction()) as frame:
                return self.kept(await function(*args, **kwargs), frame)

        return wrapper

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from resumed(function(*args, **kwargs), instruction(self.state)))

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


def resumed(generator: Generator[Any, Any, Any], frame: Frame) -> Generator[Any, Any, Any]:
    """Run a generator with an instruction that is in force only while the generator's code runs."""
    step = functools.partial(next, generator)
    running = Resumable(frame)
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


class Verb(Protocol):
    """The type of ``use_master`` and ``use_slave``, which work with parentheses and without."""

    @overload
    def __call__(self) -> Use: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


def verb(state: State, kind: type[Use]) -> Verb:
    """Return ``use_master`` or ``use_slave``: a function that makes objects of ``kind``, and has its docstring."""

    def use(function: Any = None) -> Any:
        return kind(state) if function is None else kind(state)(function)

    use.__name__ = use.__qualname__ = f"use_{state}"
    use.__module__, use.__doc__ = kind.__module__, kind.__doc__
    return use


use_master: Final = verb(MASTER, Use)
use_slave: Final = verb(SLAVE, Use)
