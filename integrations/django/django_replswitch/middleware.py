"""The middleware for ``MIDDLEWARE``; put it first. If it has not run, the decorators of views do its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, iscoroutinefunction, markcoroutinefunction, sync_to_async

from django_replswitch.conf import request_policy
from django_replswitch.other_stores import watch_other_stores
from django_replswitch.replay import (
    DjangoRequest,
    close_first,
    close_open_transactions,
    endpoint_of,
    may_run_again,
    restore,
)
from django_replswitch.streaming import abegin_stream, begin_stream, hold_state
from replswitch.request.replay import Replay, repeats
from replswitch.state import Frame, push, set_stack, stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

    from replswitch import State
    from replswitch.scope import Scope


class ReplicationMiddleware:
    """Switches all databases by the HTTP method of each request, and reads and writes markers, in sync and async code.

    Args:
        get_response: the next middleware, or the view handler; Django passes it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        watch_other_stores()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
            # Otherwise Django would call the synchronous method in another thread.
            self.process_view = self._process_view  # type: ignore[method-assign, assignment]

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request. If the next middleware or the view handler is asynchronous, return a coroutine."""
        if self._is_async:
            return self._serve(request)
        # The tasks that asgiref cancels if the client disconnects. Calls of asgiref by the view replace the list.
        tasks = getattr(SyncToAsync.threadlocal, "task_context", None)
        frame = begin(request)
        scope, safe = frame.scope, frame.scope.safe_request
        set_stack(frame)
        with frame:
            try:
                response = self.get_response(request)
                hold_state(response, frame)
                if response.streaming:
                    SyncToAsync.threadlocal.task_context = tasks
                    response = begin_stream(request, response)
            except (Replay, BaseExceptionGroup) as raised:
                if not repeats(raised, may_run_again=may_run_again(request, scope)):
                    raise
            else:
                if safe is None or safe.refusal is None or not may_run_again(request, scope):
                    return mark(request, response, frame)
                close_first(response, scope)
        close_open_transactions()
        frame = begin_again(request, scope)
        with push(frame):
            return finish(request, self.get_response(request), frame)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        if (around := stack()) is not None:  # this request runs inside another one
            await asettle(around.scope)
        frame = begin(request)
        scope, safe = frame.scope, frame.scope.safe_request
        set_stack(frame)
        with frame:
            try:
                response = await self.get_response(request)
                hold_state(response, frame)
                if response.streaming:
                    response = await abegin_stream(request, response)
                await asettle(scope)
            except (Replay, BaseExceptionGroup) as raised:
                await asettle(scope)
                if not repeats(raised, may_run_again=may_run_again(request, scope)):
                    raise
            else:
                if safe is None or safe.refusal is None or not may_run_again(request, scope):
                    return mark(request, response, frame)
                await sync_to_async(close_first)(response, scope)
        await sync_to_async(close_open_transactions)()
        frame = begin_again(request, scope)
        with push(frame):
            return await afinish(request, await self.get_response(request), frame)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Use the master for a ``request`` if earlier safe requests to the same view have written (R5)."""
        policy = request_policy()
        if policy.endpoints.known and (running := stack()) is not None:
            policy.reach(running.scope, endpoint_of(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """If the request failed after a write that could not be moved, raise Replay to run the request again (R5).

        Django then reports no exception.
        """
        running = stack()
        if running is not None and running.scope.may_run_again():
            raise Replay(exception)

    async def _process_view(self, request: HttpRequest, *_: Any) -> None:
        ReplicationMiddleware.process_view(self, request)


def begin(request: HttpRequest, wanted: State | None = None) -> Frame:
    """Begin a request. Decide its state, and return the frame that begins its scope.

    Args:
        request: the request.
        wanted: the state that a view's decorator asks for; it replaces the option ``OVERRIDE``. A decorator runs only
            a part of the request, so a request that begins in a decorator cannot run again (R5).
    """
    policy, meta = request_policy(), request.META
    override = policy.override(request, wanted)
    known = vars(request)
    is_whole = wanted is None and "session" not in known and "user" not in known
    path = request.path if is_whole else None
    has_body = meta.get("CONTENT_LENGTH", "") not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in meta
    # Do not use request.COOKIES, which has only one value for each name.
    cookies, header = meta.get("HTTP_COOKIE", ""), meta.get("HTTP_REPLSWITCH_MARKER", "")
    frame = policy.begin(request.method or "", cookies, header, override, path, has_body)
    if (safe := frame.scope.safe_request) is not None:
        safe.framework = framework = DjangoRequest()
        framework.request, framework.before = request, (known.copy(), meta.copy())
    return frame


def begin_again(request: HttpRequest, first: Scope) -> Frame:
    """Begin the second try of a request, on the master (R5).

    Args:
        request: the request; it is reset to its state before the first try.
        first: the scope of the first try.
    """
    restore(first)
    policy, meta = request_policy(), request.META
    cookies, header = meta.get("HTTP_COOKIE", ""), meta.get("HTTP_REPLSWITCH_MARKER", "")
    frame = policy.begin_again(first, request.method or "", cookies, header)
    if (safe := frame.scope.safe_request) is not None:
        safe.framework = framework = DjangoRequest()
        framework.request = request  # there is no third try, so `before` is not needed
    return frame


async def asettle(scope: Scope) -> None:
    """Find out whether pending statements have written. Query the server in asgiref's thread for synchronous code."""
    if scope.pending:
        await sync_to_async(scope.settle)()


def finish(request: HttpRequest, response: HttpResponseBase, frame: Frame) -> HttpResponseBase:
    """Add the marker and the debug header to a response. Keep the state for the pieces of a streamed response."""
    hold_state(response, frame)
    if response.streaming:
        response = begin_stream(request, response)
    return mark(request, response, frame)


async def afinish(request: HttpRequest, response: HttpResponseBase, frame: Frame) -> HttpResponseBase:
    """Do the same as `finish` under ASGI."""
    hold_state(response, frame)
    if response.streaming:
        response = await abegin_stream(request, response)
    await asettle(frame.scope)
    return mark(request, response, frame)


def mark(request: HttpRequest, response: HttpResponseBase, frame: Frame) -> HttpResponseBase:
    """Add the marker and the debug header to a response."""
    request_policy().mark(response, frame.scope, request.method or "", https=request.is_secure)
    return response
