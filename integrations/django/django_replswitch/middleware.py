"""The middleware for ``MIDDLEWARE``; put it first. If it has not run, the decorators of views do its work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

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
from replswitch.request.replay import Replay, repeats
from replswitch.state import Frame, Resumable, push, set_stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replswitch import State
    from replswitch.scope import Scope


class ReplicationMiddleware:
    """Switches all databases by the HTTP method of each request, and reads and writes markers. Sync and async."""

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
        """Serve one request; asynchronously if the next middleware or the view handler is asynchronous."""
        if self._is_async:
            return self._serve(request)
        frame = begin(request)
        scope, safe = frame.scope, frame.scope.safe_request
        set_stack(frame)
        with frame:
            try:
                response = self.get_response(request)
            except (Replay, BaseExceptionGroup) as raised:
                if not repeats(raised, may_run_again=may_run_again(request, scope)):
                    raise
            else:
                if safe is None or safe.refusal is None or not may_run_again(request, scope):
                    return finish(request, response, frame)
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
                await asettle(scope)
            except (Replay, BaseExceptionGroup) as raised:
                await asettle(scope)
                if not repeats(raised, may_run_again=may_run_again(request, scope)):
                    raise
            else:
                if safe is None or safe.refusal is None or not may_run_again(request, scope):
                    return finish(request, response, frame)
                await sync_to_async(close_first)(response, scope)
        await sync_to_async(close_open_transactions)()
        frame = begin_again(request, scope)
        with push(frame):
            response = await self.get_response(request)
            await asettle(frame.scope)
            return finish(request, response, frame)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Use the master for a view whose earlier safe requests have written (R5)."""
        policy = request_policy()
        if policy.endpoints.known and (running := stack()) is not None:
            policy.reach(running.scope, endpoint_of(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Run a request again if it has failed after a write that could not be moved, before Django reports it (R5)."""
        running = stack()
        if running is not None and running.scope.may_run_again():
            raise Replay(exception)

    async def _process_view(self, request: HttpRequest, *_: Any) -> None:
        ReplicationMiddleware.process_view(self, request)


def begin(request: HttpRequest, wanted: State | None = None) -> Frame:
    """Begin a request: decide its state, and return the frame of its scope.

    Args:
        request: the request.
        wanted: the state that a view's decorator asks for, instead of the option ``OVERRIDE``. A decorator runs only
            a part of the request, so such a request cannot run again (R5).
    """
    policy, meta = request_policy(), request.META
    override = policy.override(request) if wanted is None else wanted
    known = vars(request)
    is_whole = wanted is None and "session" not in known and "user" not in known
    path = request.path if is_whole else None
    has_body = meta.get("CONTENT_LENGTH", "") not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in meta
    # Not request.COOKIES, which has only one value for each name.
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
        framework.request = request  # there is no third try, so nothing to restore
    return frame


async def asettle(scope: Scope) -> None:
    """Find out whether pending statements have written. Ask in the thread that runs synchronous code."""
    if scope.pending:
        await sync_to_async(scope.settle)()


def finish(request: HttpRequest, response: HttpResponseBase, frame: Frame) -> HttpResponseBase:
    """Add the marker and the debug header to a response. Keep the state for the pieces of a streamed response."""
    request_policy().mark(response, frame.scope, request.method or "", https=request.is_secure)
    hold_state(response, frame)
    return response


def hold_state(response: HttpResponseBase, frame: Frame) -> None:
    """Enter the state for each piece of a streamed response, and for what closes it, and leave it after that (S9)."""
    streamed: Any = response
    if not response.streaming and not streamed._resource_closers:
        return  # the common case
    frame.scope.is_streamed = True
    running = Resumable(frame)
    # These functions run code of the view, so they run in its state too.
    streamed._resource_closers = [partial(_within, running, closer) for closer in streamed._resource_closers]
    if not isinstance(response, StreamingHttpResponse) or getattr(response, "file_to_stream", None) is not None:
        return
    # Use the iterator itself. `streaming_content` returns a wrapper, and closing that does not close the iterator.
    pieces = streamed._iterator
    if streamed.is_async:
        streamed.streaming_content = _async_pieces(pieces, running)
    else:
        streamed.streaming_content = iter(partial(_within, running, partial(next, pieces, _END)), _END)


def _within(running: Resumable, call: Callable[[], object]) -> object:
    with running:
        return call()


# The value that marks the end of the pieces.
_END: Final = object()

# The asynchronous iterators that are being streamed. If a client disconnects, an iterator must not be garbage-collected
# before the generator around it, which closes it in its state.
_streamed: Final[set[Any]] = set()


async def _async_pieces(pieces: AsyncIterator[bytes], running: Resumable) -> AsyncIterator[bytes]:
    _streamed.add(pieces)
    try:
        while True:
            with running:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            with running:
                await pieces.aclose()
        _streamed.discard(pieces)
