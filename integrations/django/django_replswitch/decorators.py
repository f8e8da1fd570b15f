"""``use_master`` and ``use_slave`` for views, and for everything else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.template.response import SimpleTemplateResponse

from django_replswitch.serving import begin, finish, hold_state
from replswitch import MASTER, SLAVE, State
from replswitch.decorators import Use
from replswitch.state import Frame, Resumable, instruction, push, stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decorators import P, R


@overload
def use_master() -> Use: ...
@overload
def use_master(function: Callable[P, R]) -> Callable[P, R]: ...
def use_master(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use the master, as a decorator of a view, of any function, or in a ``with`` block.

    On class-based views: ``@method_decorator(use_master, name="dispatch")``. Where the middleware has not run, a
    decorated view gets what the middleware does: a marker is read, and one is set when the view writes.
    """
    return _Use(MASTER) if function is None else _Use(MASTER)(function)


@overload
def use_slave() -> Use: ...
@overload
def use_slave(function: Callable[P, R]) -> Callable[P, R]: ...
def use_slave(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use a slave, as a decorator of a view, of any function, or in a ``with`` block.

    On class-based views: ``@method_decorator(use_slave, name="dispatch")``. Where the middleware has not run, a
    decorated view gets what the middleware does: a marker is read, and one is set when the view writes.
    """
    return _Use(SLAVE) if function is None else _Use(SLAVE)(function)


class _Use(Use):
    """The core's, and knows a view when it is called as one."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._wanted = state

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        plain: Any = super().__call__(function)
        wrapper: Any

        if iscoroutinefunction(function):
            view: Any = function

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                request = _request(args)
                if request is None:
                    return await plain(*args, **kwargs)
                frame, is_outermost = self._frame(request)
                with push(frame):
                    response = await view(*args, **kwargs)
                return _kept(request, response, frame, is_outermost=is_outermost)

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                request = _request(args)
                if request is None:
                    return plain(*args, **kwargs)
                frame, is_outermost = self._frame(request)
                with push(frame):
                    response: Any = function(*args, **kwargs)
                return _kept(request, response, frame, is_outermost=is_outermost)

        return functools.wraps(function)(wrapper)

    def _frame(self, request: HttpRequest) -> tuple[Frame, bool]:
        running = stack()
        if running is not None and running.scope.is_request:
            return instruction(self._wanted), False
        return begin(request, self._wanted), True


def _request(args: tuple[Any, ...]) -> HttpRequest | None:
    # A view's first argument; its second where the method itself is decorated.
    return next((argument for argument in args[:2] if isinstance(argument, HttpRequest)), None)


def _kept(request: HttpRequest, response: Any, frame: Frame, *, is_outermost: bool) -> Any:
    """Let the state hold for what is produced behind the view: a template's queries, the pieces of a stream."""
    if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
        running, render = Resumable(frame), response.render

        def rendered() -> Any:
            with running:
                answer = render()
            return finish(request, answer, frame) if is_outermost else answer

        response.render = rendered  # type: ignore[method-assign]  # this one response's
        return response
    if is_outermost:
        return finish(request, response, frame)
    hold_state(response, Resumable(frame))
    return response
