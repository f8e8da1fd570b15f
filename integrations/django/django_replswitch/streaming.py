"""Keep the state while the pieces of a streamed response are produced. Produce the first piece before the marker."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from replswitch.state import Frame, Resumable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# The clients of a stream of events need the headers before the first event. A WSGI server sends the headers with it.
_EVENTS: Final = "text/event-stream"


def hold_state(response: HttpResponseBase, frame: Frame) -> None:
    """Make a streamed response run in the state of ``frame``, while its pieces are produced and when it closes (S9)."""
    streamed: Any = response
    if not response.streaming and not streamed._resource_closers:
        return  # the common case
    frame.scope.is_streamed = True
    running = Resumable(frame)
    # These functions run code of the view, so they run in the view's state too.
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
# before the generator around it, because that generator closes the iterator in the view's state.
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


# The first piece


def begin_stream(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Produce a streamed response up to its first piece that is not empty (M7). Call `hold_state` before.

    Under ASGI, this function is called if a synchronous middleware or view is next. It then produces no piece of a
    stream of events, because the headers of such a stream are sent at once.

    Returns:
        the response; if producing the piece has raised an error, Django's response to the error.
    """
    if isinstance(request, ASGIRequest):
        if _is_event_stream(response):
            return response
        if response.is_async:  # type: ignore[attr-defined]  # a streamed response has it
            # If Django's event loop waits for this thread, the loop can produce the pieces. If this code runs in the
            # loop itself, it cannot wait for them.
            has_loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None) is not None
            return async_to_sync(abegin_stream)(request, response) if has_loop else response
    try:
        answer = convert_exception_to_response(lambda _: _begin(response))(request)
    except BaseException:  # such as Replay
        _close(response)
        raise
    return _with_closers(answer, response)


async def abegin_stream(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Do the same as `begin_stream` in an event loop. Produce no piece of a stream of events."""
    if _is_event_stream(response):
        return response

    async def begin(_: HttpRequest) -> HttpResponseBase:
        return await _abegin(response)

    guarded: Any = convert_exception_to_response(begin)
    try:
        answer = await guarded(request)
    except BaseException:  # such as Replay, or the cancellation of the task
        await sync_to_async(_close)(response)  # Django's ORM refuses to work in the event loop
        raise
    return _with_closers(answer, response)


def _is_event_stream(response: HttpResponseBase) -> bool:
    return response.headers.get("Content-Type", "").startswith(_EVENTS)


def _content_check(response: Any) -> Callable[[Any], bool]:
    """Return a function that is called with one piece after the other, and returns whether a piece is not empty.

    Django's GZipMiddleware sends the gzip header before the first piece, and compresses empty pieces, too. So the
    function decompresses the pieces. In a stream of events, any bytes are accepted, because the stream may be endless.
    """
    if response.headers.get("Content-Encoding") != "gzip" or _is_event_stream(response):
        return lambda piece: bool(response.make_bytes(piece))
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress

    def has_content(piece: Any) -> bool:
        try:
            return bool(decompress(response.make_bytes(piece), 1))
        except zlib.error:  # it is not gzip
            return True

    return has_content


def _close(response: Any) -> None:
    """Close a response whose first piece cannot be produced."""
    for close in response._resource_closers:
        with suppress(Exception):
            close()


def _with_closers(answer: Any, response: Any) -> HttpResponseBase:
    """Make ``answer``, which the server gets, close ``response`` when the server closes it. Return ``answer``."""
    if answer is not response:
        answer._resource_closers.extend(response._resource_closers)
    return answer  # type: ignore[no-any-return]  # Django's response


def _begin(response: Any) -> HttpResponseBase:
    if getattr(response, "file_to_stream", None) is None:
        first: list[Any] = []
        if response.is_async:
            response.streaming_content = iter(list(response))  # WSGI: Django warns, and waits for all pieces
        else:
            pieces, has_content = response._iterator, _content_check(response)
            for piece in pieces:
                first.append(piece)
                if has_content(piece):
                    break
            response.streaming_content = chain(first, pieces)
    return response  # type: ignore[no-any-return]  # it is one


async def _abegin(response: Any) -> HttpResponseBase:
    if not response.is_async:
        return await sync_to_async(_begin)(response)
    first, pieces, has_content = [], response._iterator, _content_check(response)
    async for piece in pieces:
        first.append(piece)
        if has_content(piece):
            break
    response.streaming_content = _chained(first, pieces)
    return response  # type: ignore[no-any-return]  # it is one


async def _chained(first: list[Any], rest: AsyncGenerator[Any]) -> AsyncIterator[Any]:
    try:
        for piece in first:
            yield piece
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()
