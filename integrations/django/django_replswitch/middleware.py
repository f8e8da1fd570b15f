"""The middleware for ``MIDDLEWARE``; put it first. The decorators of views do the same where it has not run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from django_replswitch.conf import request_policy
from replswitch.state import Frame, Resumable, push

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replswitch import State
    from replswitch.scope import Scope


class ReplicationMiddleware:
    """Switches all databases by the method of each request, and reads and writes markers. Sync and async."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request; asynchronously where what is inside is asynchronous."""
        if self._is_async:
            return self._serve(request)
        frame = begin(request)
        with push(frame):
            return finish(request, self.get_response(request), frame)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        frame = begin(request)
        with push(frame):
            response = await self.get_response(request)
            await asettle(frame.scope)
        return finish(request, response, frame)


def begin(request: HttpRequest, wanted: State | None = None) -> Frame:
    """Decide for a request.

    Args:
        request: the request.
        wanted: what a view's decorator asks for, in the place of the option ``OVERRIDE``.
    """
    policy = request_policy()
    override: Any = wanted
    if override is None and policy.options.override is not None and policy.options.enabled:
        override = policy.options.override(request)
    # Not request.COOKIES, which has one value of each name.
    tokens = policy.tokens(request.META.get("HTTP_COOKIE", ""), request.META.get("HTTP_REPLSWITCH_MARKER", ""))
    return policy.begin(request.method or "", tokens, override)


async def asettle(scope: Scope) -> None:
    """Find out, in the thread that serves synchronous code, whether statements have written that may have."""
    if scope.pending:
        await sync_to_async(scope.settle)()


def finish(request: HttpRequest, response: HttpResponseBase, frame: Frame) -> HttpResponseBase:
    """Add the marker and the debug header to a response, and keep the state for the pieces of a streamed one."""
    request_policy().mark(response, frame.scope, request.method or "", https=request.is_secure)
    if response.streaming:
        hold_state(response, Resumable(frame))
    return response


def hold_state(response: HttpResponseBase, running: Resumable) -> None:
    """Let the state hold while a streamed response is produced, and only then (S9)."""
    if not isinstance(response, StreamingHttpResponse) or getattr(response, "file_to_stream", None) is not None:
        return
    streamed: Any = response
    # What closes the view's own iterator stands here already, and is the view's code too.
    streamed._resource_closers = [partial(_within, running, closer) for closer in streamed._resource_closers]
    # The iterator itself: what `streaming_content` returns would not be closed with it.
    pieces = streamed._iterator
    if streamed.is_async:
        streamed.streaming_content = _async_pieces(pieces, running)
    else:
        streamed.streaming_content = iter(partial(_within, running, partial(next, pieces, _END)), _END)


def _within(running: Resumable, call: Callable[[], object]) -> object:
    with running:
        return call()


# Stands behind the last piece.
_END: Final = object()

# The asynchronous iterators that are being streamed: where a client goes away, they must not be collected before the
# generator around them, which closes them in their state.
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
