"""Determine whether the writes of the running code make a marker (M1)."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

P = ParamSpec("P")
R = TypeVar("R")

# Whether the writes of the running code make a marker. None means that they make none, and may run twice.
_recording: ContextVar[bool | None] = ContextVar("replswitch.recording", default=True)


def is_recording() -> bool:
    """Return whether the running code's writes make a marker."""
    return _recording.get() is True


def is_repeatable() -> bool:
    """Return whether the running code's writes make no marker, and may run twice (R5)."""
    return _recording.get() is None


class unrecorded:  # noqa: N801 - used as a function
    """Make no marker for the writes of a block, or of a decorated function.

    Use it for data that the visitor does not have to see at once, such as a view counter or a time of last visit. Use
    it as ``with unrecorded():``, or as ``@unrecorded()`` on functions and coroutine functions.

    Args:
        repeatable: writing twice does no harm, so the request may still run again on the master (R5).

    Raises:
        ConfigurationError: the decorated function is a generator function, whose code runs interleaved with other code.
    """

    def __init__(self, *, repeatable: bool = False) -> None:
        self._recording = None if repeatable else False
        self._tokens: list[Token[bool | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_recording.set(self._recording))

    def __exit__(self, *error: object) -> None:
        _recording.reset(self._tokens.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"unrecorded() cannot decorate the generator function {function.__qualname__}(). Write `with "
                "unrecorded():` in the function, around the writes."
            )
        repeatable, wrapped = self._recording is None, function
        wrapper: Any
        if inspect.iscoroutinefunction(function):

            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                with unrecorded(repeatable=repeatable):
                    return await wrapped(*args, **kwargs)  # type: ignore[misc]  # a coroutine function
        else:

            def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                with unrecorded(repeatable=repeatable):
                    return wrapped(*args, **kwargs)

        return functools.wraps(function)(wrapper)
