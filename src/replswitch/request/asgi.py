"""ASGI middleware: choose the state of a request, and add a marker to its response if it wrote. See the ASGI 3 spec.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Unpack

from replswitch.checking import require
from replswitch.errors import ConfigurationError, ReplSwitchError
from replswitch.request.connection import encoded, read_headers
from replswitch.request.options import RequestOptionNames, Secret, request_options
from replswitch.request.policy import RequestPolicy
from replswitch.request.replay import Replay, committed_on_close, repeats
from replswitch.request.websocket import serve_websocket
from replswitch.state import set_stack, stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replswitch.request.connection import ASGIApplication, ConnectionScope, Message, Receive, Send
    from replswitch.state import Frame

# The messages that send a part of the body; the last two are extensions of ASGI.
_BODY: Final = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})

_DISCONNECT: Final = "http.disconnect"

_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")

# Names have to be in lower case, but not every application follows that.
_CONTENT_TYPE: Final = frozenset({b"content-type", b"Content-Type"})
_EVENT_STREAM: Final = b"text/event-stream"


class ReplicationMiddleware:
    """Switches the databases of an ASGI application by the method of each request, and reads and writes markers.

    GET, HEAD, OPTIONS, TRACE and QUERY set slave state, every other method sets master state (R1). A request with a
    marker sees what its visitor has written. Wrap the whole application, so that error pages made by other middleware
    contain the marker too. A websocket is in master state. Lifespan messages are passed through unchanged.

    Args:
        app: the ASGI application.
        secret: the key that signs the markers; a string, or several with the newest first.
        hold: send a response in one piece only when the application has returned, so that its marker includes a commit
            after the response. Background tasks delay the response then.
        options: see `replswitch.request.options.RequestOptions`. ``override`` is called with the connection scope.

    Raises:
        ConfigurationError: there is no secret, or an option is unknown or of the wrong kind.
    """

    def __init__(
        self,
        app: ASGIApplication,
        secret: Secret | None = None,
        *,
        hold: bool = False,
        **options: Unpack[RequestOptionNames],
    ) -> None:
        if not callable(app):
            raise ConfigurationError(
                f"ReplicationMiddleware wraps an ASGI application, and {app!r} cannot be called. Give the application "
                "itself: ReplicationMiddleware(app, secret=…)."
            )
        require(isinstance(hold, bool), "hold", hold, "True or False")
        self.app = app
        self.hold = hold
        self.policy = RequestPolicy(request_options(options), secret)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection.

        Raises:
            ConfigurationError: the option ``override`` returned a value that is neither a state nor None.
        """
        policy = self.policy
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await serve_websocket(self.app, policy, scope, receive, send, policy.override(scope))
            else:
                await self.app(scope, receive, send)
            return
        cookies, header, has_body = read_headers(scope["headers"])
        outer = stack()
        frame = policy.begin(scope["method"], cookies, header, policy.override(scope), scope["path"], has_body)
        first = _Attempt(self, scope, frame, outer, receive, send)
        if (safe := frame.scope.safe_request) is not None and safe.is_repeatable:
            first.keep()
        attempt: _Attempt | None = first
        try:
            while attempt is not None:
                following = None
                set_stack(attempt.frame)
                try:
                    await self.app(scope, attempt.receive, attempt.send)
                except (Replay, BaseExceptionGroup, Exception) as raised:
                    if not repeats(raised, may_run_again=attempt.scope.may_run_again()):
                        if isinstance(raised, Exception):
                            await attempt.fail()
                        raise
                    following = attempt.next()
                else:
                    if not attempt.scope.answered:
                        following = await attempt.finish()
                finally:
                    attempt.scope.end()
                attempt = following
        finally:
            set_stack(outer)


class _Attempt:
    """One run of the application for a request.

    The headers are sent with the first piece of the body that is not empty, because an application may commit until
    then (M7). The state holds only while the application runs (S9). The code of the server runs with the outer stack,
    because the server may keep the context of a call and run the next request of the connection in it.

    Args:
        middleware: the middleware.
        asgi_scope: the connection scope from the server. The application may change it.
        frame: the frame of the request, which sets its state.
        outer: the stack in which the server has called the middleware.
        receive: the server's ``receive()``.
        send: the server's ``send()``.

    Attributes:
        before: a copy of the connection scope as the server made it.
        scope: what belongs to the request in this attempt.
        received: the messages that the application has received; None if the request cannot run again.
        repeated: messages that an earlier attempt has received, and that this one has not received yet.
        start: the message with the status and the headers, until it is sent.
        held: the messages that are sent when the application has returned, in their order; see the option ``hold``.
        is_over: another attempt has followed. To tasks of this attempt that still run, ``receive()`` reports that the
            client has disconnected.
        discarded: the error to raise if the response was discarded, but the request may not run again after all.
    """

    __slots__ = (
        "asgi_scope", "before", "discarded", "frame", "held", "is_over", "middleware", "outer", "received", "repeated",
        "scope", "server_receive", "server_send", "start",
    )  # fmt: skip

    def __init__(
        self,
        middleware: ReplicationMiddleware,
        asgi_scope: ConnectionScope,
        frame: Frame,
        outer: Frame | None,
        receive: Receive,
        send: Send,
    ) -> None:
        self.middleware, self.asgi_scope, self.before = middleware, asgi_scope, dict(asgi_scope)
        self.frame, self.scope, self.outer = frame, frame.scope, outer
        self.server_receive, self.server_send = receive, send
        self.received: list[Message] | None = None
        self.start: Message | None = None
        self.discarded: Exception | None = None
        self.repeated: Sequence[Message] = ()
        self.held: list[Message] | None = None
        self.is_over = False

    def keep(self) -> None:
        """Keep what a second attempt needs: the parts of the connection scope that applications change in place."""
        self.received = []
        self.before["headers"] = list(self.before["headers"])
        if (state := self.before.get("state")) is not None:
            self.before["state"] = state.copy()

    async def finish(self) -> _Attempt | None:
        """End the attempt after the application has returned, if nothing of the response was sent: send it now.

        Returns:
            the next attempt if a write in this one could not be moved (R5), else None.
        """
        if self._is_refused() and self.scope.may_run_again():
            return self.next()
        if self.discarded is not None:
            raise self.discarded
        if self.start is not None:
            messages = [self._marked_start(), *(self.held or ())]  # if there is no body, the server reports that
            set_stack(self.outer)
            for message in messages:
                await self.server_send(message)
        return None

    async def fail(self) -> None:
        """Answer an error of a request that has written. The server's own answer would have no marker."""
        scope = self.scope
        if scope.answered or self.is_over:
            return
        scope.hand_back()
        if scope.wrote is None:
            return
        self.start = {"type": "http.response.start", "status": 500, "headers": [_PLAIN]}
        start = self._marked_start()
        set_stack(self.outer)
        with suppress(Exception):  # the client may be gone; the application's error matters more
            await self.server_send(start)
            await self.server_send({"type": "http.response.body", "body": b"Internal Server Error"})

    def next(self) -> _Attempt:
        """Return the next attempt, with the connection scope as the server made it."""
        safe, before = self.scope.safe_request, self.before
        assert safe is not None  # noqa: S101 - for the type checker
        safe.runs_again = self.is_over = True
        set_stack(self.outer)
        self.asgi_scope.clear()
        self.asgi_scope.update(before)
        cookies, header, _ = read_headers(before["headers"])
        frame = self.middleware.policy.begin_again(self.scope, before["method"], cookies, header)
        following = _Attempt(self.middleware, self.asgi_scope, frame, self.outer, self.server_receive, self.server_send)
        following.repeated = self.received or ()
        return following

    def _is_refused(self) -> bool:
        safe = self.scope.safe_request
        return safe is not None and safe.refusal is not None

    # What the application calls

    async def receive(self) -> Message:
        """Return the next message of the client."""
        if self.is_over:
            return {"type": _DISCONNECT}
        if self.repeated:
            message, *self.repeated = self.repeated
            return message
        inner = stack()
        set_stack(self.outer)
        try:
            message = await self.server_receive()
        finally:
            set_stack(inner)
        if self.received is not None:
            self._keep(message)
        return message

    def _keep(self, message: Message) -> None:
        """Keep a message for a second attempt. There is none if the client sends a body, or has disconnected."""
        safe = self.scope.safe_request
        if message["type"] == _DISCONNECT or message.get("body") or message.get("more_body"):
            self.received = None
            if safe is not None:
                safe.is_repeatable = False
        elif self.received is not None:
            self.received.append(dict(message))

    async def send(self, message: Message) -> None:
        """Send a message to the client. Hold the headers back until the first piece of the body that is not empty.

        Raises:
            Replay: the response is discarded, because a write in the request could not be moved.
            ReplSwitchError: the application has sent the headers already.
        """
        start = None
        if not self.scope.answered:
            if self.is_over:
                return
            kind = message["type"]
            if self.held is not None:
                self.held.append(message)
                return
            if kind == "http.response.start":
                self._keep_start(message)
                if not _is_event_stream(message):
                    return
                message = self._marked_start()
            elif kind in _BODY and self.start is not None:
                if message.get("more_body") and not message.get("body") and kind == "http.response.body":
                    return
                if self.middleware.hold and _is_whole(self.start, message):
                    self.held = [message]
                    return
                start = self._marked_start()
        inner = stack()
        set_stack(self.outer)
        try:
            if start is not None:
                await self.server_send(start)
            await self.server_send(message)
        finally:
            set_stack(inner)

    def _keep_start(self, start: Message) -> None:
        if self.start is not None:
            raise ReplSwitchError(
                "The application sent http.response.start a second time, which the ASGI specification forbids."
            )
        self.start = start

    def _marked_start(self) -> Message:
        """Return the message with the status and the headers, and a marker if the request wrote."""
        scope, start, policy = self.scope, self.start, self.middleware.policy
        assert start is not None  # noqa: S101 - for the type checker
        safe = scope.safe_request
        if safe is not None and safe.refusal is not None and scope.may_run_again():
            self.discarded = committed_on_close(safe.refusal)
            raise Replay(self.discarded)
        self.start, before = None, self.before
        is_https = before.get("scheme") == "https"
        extra = policy.extra_headers(scope, before["method"], start["status"], is_https=is_https)
        return {**start, "headers": [*start.get("headers", ()), *encoded(extra)]} if extra else start


def _is_whole(start: Message, piece: Message) -> bool:
    """Return whether a message has the whole body. An empty message may follow, as Starlette's own middleware sends."""
    if not piece.get("more_body"):
        return True
    length = str(len(piece.get("body", b""))).encode()
    return any(name.lower() == b"content-length" and value == length for name, value in start.get("headers", ()))


def _is_event_stream(start: Message) -> bool:
    """Return whether the body is a stream of events. Its client needs the headers before the first event."""
    for name, value in start.get("headers", ()):
        if name in _CONTENT_TYPE:
            return bool(value[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM)
    return False
