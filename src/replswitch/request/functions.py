"""The options that may be functions of the request: ``enabled`` and ``rollout``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from replswitch.checking import is_number
from replswitch.errors import ConfigurationError
from replswitch.request.options import takes_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.request.options import Override, RequestOptions


class Answers(NamedTuple):
    """The values of the options for one request, after their functions were called.

    Attributes:
        override: the result of the option ``override``, or the state that a decorator asks for.
        enabled: the option ``enabled``.
        share: the option ``rollout``, which is a number from 0 to 1, or True or False for this visitor.
    """

    override: object
    enabled: bool
    share: float


class Functions:
    """Calls the functions in the options ``enabled`` and ``rollout``, and checks their results.

    A function gets the request of the framework, or nothing if it takes no argument.

    Args:
        options: the options of requests.

    Attributes:
        are_given: at least one of the two options is a function.
    """

    def __init__(self, options: RequestOptions) -> None:
        self._enabled, self._rollout = _of_request(options.enabled), _of_request(options.rollout)
        self._share = 1 if callable(options.rollout) else options.rollout
        self.are_given = self._enabled is not None or self._rollout is not None

    def answers(self, request: Any, wanted: object, override: Override | None = None) -> Answers:
        """Return the values of the options for a request.

        If ``enabled`` is False, the other functions are not called, and the visitor reads from no slave.

        Args:
            request: the request of the framework.
            wanted: a state that replaces the result of the option ``override``; None if there is no such state.
            override: the option ``override``.

        Raises:
            ConfigurationError: a function has returned a value of the wrong kind.
        """
        is_enabled = self.is_enabled(request)
        if is_enabled and wanted is None and override is not None:
            wanted = override(request)
        if self._rollout is None:
            return Answers(wanted, is_enabled, self._share)
        share = self._rollout(request) if is_enabled else False
        if not isinstance(share, bool) and not (is_number(share) and 0 <= share <= 1):
            raise _wrong("rollout", share, "a number from 0 to 1, or True or False for this visitor")
        return Answers(wanted, is_enabled, share)

    def is_enabled(self, request: Any) -> bool:
        """Return the value of ``enabled`` for a request.

        Raises:
            ConfigurationError: the function has returned neither True nor False.
        """
        answer = True if self._enabled is None else self._enabled(request)
        if not isinstance(answer, bool):
            raise _wrong("enabled", answer, "True or False")
        return answer


def _of_request(value: Any) -> Callable[[Any], Any] | None:
    """Return an option's value as a function that takes the request; None if the value is not a function."""
    if not callable(value):
        return None
    return value if takes_request(value) else lambda _: value()


def _wrong(name: str, answer: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f'The function in the option "{name}" returned {answer!r}. It must return {wanted}.')
