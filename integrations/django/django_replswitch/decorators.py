"""``use_master`` and ``use_slave`` for views, and for everything else."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, cast, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse

from django_replswitch.serving import asettle, begin, finish, hold_state
from replswitch import MASTER, SLAVE
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

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        plain: Any = super().__call__(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            return cast("Callable[P, R]", plain)  # no view
        view: Any = function

        async def awaited(request: HttpRequest, answer: Any, frame: Frame, *, is_outermost: bool) -> Any:
            with push(frame):
                response = await answer
                if is_outermost:
                    await asettle(frame.scope)
            return _kept(request, response, frame, is_outermost=is_outermost)

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            request = _request(args)
            if request is None:
                return await plain(*args, **kwargs)
            frame, is_outermost = self._frame(request)
            return await awaited(request, view(*args, **kwargs), frame, is_outermost=is_outermost)

        @functools.wraps(function)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            request = _request(args)
            if request is None:
                return plain(*args, **kwargs)
            frame, is_outermost = self._frame(request)
            with push(frame):
                response = view(*args, **kwargs)
                if is_outermost and not inspect.iscoroutine(response):
                    frame.scope.settle()
            if inspect.iscoroutine(response):  # the dispatch() of an asynchronous class
                return awaited(request, response, frame, is_outermost=is_outermost)
            return _kept(request, response, frame, is_outermost=is_outermost)

        wrapper: Any = asynchronous if iscoroutinefunction(function) else synchronous
        return cast("Callable[P, R]", wrapper)

    def _frame(self, request: HttpRequest) -> tuple[Frame, bool]:
        running = stack()
        if running is not None and running.scope.is_request:
            return instruction(self.state), False
        return begin(request, self.state), True


def _request(args: tuple[Any, ...]) -> HttpRequest | None:
    # A view's first argument; its second where the method itself is decorated.
    return next((argument for argument in args[:2] if isinstance(argument, HttpRequest)), None)


def _kept(request: HttpRequest, response: Any, frame: Frame, *, is_outermost: bool) -> Any:
    """Let the state hold for what is produced behind the view: a template's queries, the pieces of a stream."""
    if not isinstance(response, HttpResponseBase):
        return response  # no view, though it takes a request
    if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
        running = Resumable(frame)
        inner = vars(response).get("render")  # of a decorator below

        def render() -> Any:
            del response.render  # and so nothing of this is left in a response that is cached
            if inner is not None:
                response.render = inner  # type: ignore[method-assign]  # this one response's
            with running:
                answer = response.render()
                if is_outermost:
                    frame.scope.settle()
            return finish(request, answer, frame) if is_outermost else answer

        response.render = render  # type: ignore[method-assign]  # this one response's
        return response
    if is_outermost:
        return finish(request, response, frame)
    hold_state(response, Resumable(frame))
    return response
