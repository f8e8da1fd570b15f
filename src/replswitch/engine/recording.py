"""Determine whether the writes of the running code make a marker (M1)."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

P = ParamSpec("P")
R = TypeVar("R")

_recording: ContextVar[bool] = ContextVar("replswitch.recording", default=True)
_repeatable: ContextVar[bool] = ContextVar("replswitch.repeatable", default=False)

#: Return whether the running code's writes make a marker. It is a function in C, because each statement calls it.
is_recording: Final = _recording.get
#: Return whether the running code's writes make no marker, and may run twice (R5).
is_repeatable: Final = _repeatable.get


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
        self._repeatable = repeatable
        self._tokens: list[tuple[Token[bool], Token[bool]]] = []

    def __enter__(self) -> None:
        self._tokens.append((_recording.set(False), _repeatable.set(self._repeatable)))

    def __exit__(self, *error: object) -> None:
        recording, repeatable = self._tokens.pop()
        _recording.reset(recording)
        _repeatable.reset(repeatable)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"unrecorded() cannot decorate the generator function {function.__qualname__}(). Write `with "
                "unrecorded():` in the function, around the writes."
            )
        repeatable, wrapped = self._repeatable, function
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
