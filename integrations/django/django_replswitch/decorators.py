"""``use_master`` and ``use_slave`` for views, for other functions and for ``with`` blocks."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse

from django_replswitch.middleware import afinish, asettle, begin, finish
from django_replswitch.streaming import hold_state
from replswitch import MASTER, SLAVE
from replswitch.decorators import Use, verb
from replswitch.state import Frame, Resumable, instruction, push, stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decorators import P, R


class _Use(Use):
    """Use the master, or a slave, as a decorator for views and other functions, or in a ``with`` block.

    On class-based views, write ``@method_decorator(use_slave, name="dispatch")``. If the middleware has not run, the
    decorator does the middleware's work for the view. It reads the marker, and sets one if the view writes.
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        plain: Any = super().__call__(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            return cast("Callable[P, R]", plain)  # it is not a view
        view: Any = function

        async def awaited(request: HttpRequest, answer: Any, frame: Frame) -> Any:
            with push(frame):
                response = await answer
                if frame.begins_scope:
                    if isinstance(response, StreamingHttpResponse):
                        return await afinish(request, response, frame)
                    await asettle(frame.scope)
                return _kept(request, response, frame)

        def synchronous(*args: Any, **kwargs: Any) -> Any:
            # The request is the first argument of a view, and the second one of a decorated method.
            request = next((argument for argument in args[:2] if isinstance(argument, HttpRequest)), None)
            if request is None:
                return plain(*args, **kwargs)
            running = stack()
            in_request = running is not None and running.scope.is_request
            frame = instruction(self.state) if in_request else begin(request, self.state)
            if iscoroutinefunction(function):
                return awaited(request, view(*args, **kwargs), frame)
            with push(frame):
                response = view(*args, **kwargs)
                if not inspect.iscoroutine(response):
                    return _kept(request, response, frame)
            return awaited(request, response, frame)  # dispatch() of an asynchronous class-based view

        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            return await synchronous(*args, **kwargs)

        wrapper: Any = asynchronous if iscoroutinefunction(function) else synchronous
        return cast("Callable[P, R]", functools.wraps(function)(wrapper))


def _kept(request: HttpRequest, response: Any, frame: Frame) -> Any:
    """Keep the state for what runs after the view has returned, such as a template's queries or a streamed body."""
    if not isinstance(response, HttpResponseBase):
        return response  # the function is not a view, although it takes a request
    if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
        running = Resumable(frame)
        inner = vars(response).get("render")  # set by another decorator of the view

        def render() -> Any:
            del response.render  # a cached response must not keep this function
            if inner is not None:
                response.render = inner  # type: ignore[method-assign]  # for this response only
            with running:
                return _kept(request, response.render(), frame)

        response.render = render  # type: ignore[method-assign]  # for this response only
        return response
    if frame.begins_scope:
        return finish(request, response, frame)
    hold_state(response, frame)
    return response


use_master: Final = verb(MASTER, _Use)
use_slave: Final = verb(SLAVE, _Use)
