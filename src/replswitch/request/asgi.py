"""ASGI middleware that chooses a request's state, and adds a marker to the response after a write.

See the specification of ASGI 3: https://asgi.readthedocs.io/en/latest/specs/www.html
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
    from replswitch.scope import Scope
    from replswitch.state import Frame

# The messages that send a part of the body; the last two are extensions of ASGI.
_BODY: Final = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})

_DISCONNECT: Final = "http.disconnect"

_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")

# ASGI requires names of headers in lower case, but not every application follows this rule.
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
        hold: if a response has only one piece, do not send it before the application has returned. Then its marker
            includes a commit after the response, but background tasks delay the response.
        options: see `replswitch.request.options.RequestOptions`. Their functions are called with the
            connection scope.

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
                f"ReplicationMiddleware needs an ASGI application, but {app!r} cannot be called. Give the application "
                "itself: ReplicationMiddleware(app, secret=…)."
            )
        require(isinstance(hold, bool), "hold", hold, "True or False")
        self.app = app
        self.hold = hold
        self.policy = RequestPolicy(request_options(options), secret)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection.

        Raises:
            ConfigurationError: a function in the options returned a value of the wrong kind.
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
        attempt: _Attempt | None = self._attempt(scope, frame, outer, receive, send)
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

    def _attempt(
        self, asgi_scope: ConnectionScope, frame: Frame, outer: Frame | None, receive: Receive, send: Send
    ) -> _Attempt:
        """Return a new `_Attempt`, which is one run of the application, with the arguments as its attributes."""
        attempt = _Attempt()
        attempt.middleware, attempt.asgi_scope = self, asgi_scope
        attempt.frame, attempt.outer, attempt.scope = frame, outer, frame.scope
        attempt.server_receive, attempt.server_send = receive, send
        attempt.received = attempt.held = attempt.start = attempt.discarded = None
        attempt.repeated, attempt.is_over = (), False
        attempt.before = before = {**asgi_scope}
        safe = attempt.scope.safe_request
        if safe is not None and safe.is_repeatable:
            attempt.received = []
            before["headers"] = [*before["headers"]]  # applications change these two in place
            if before.get("state") is not None:
                before["state"] = before["state"].copy()
        return attempt


class _Attempt:
    """One run of the application for a request.

    The headers are sent with the first piece of the body that is not empty, because an application may commit until
    then (M7). The state is in force only while the application runs (S9). The code of the server runs with the outer
    stack, because the server may keep the context of a call and run the next request of the connection in it.

    The middleware makes an object for each request. For speed, it sets the slots itself, without ``__init__``.

    Attributes:
        middleware: the middleware.
        asgi_scope: the connection scope from the server. The application may change it.
        frame: the frame of the request, which sets its state.
        outer: the stack in which the server has called the middleware.
        server_receive: the server's ``receive()``.
        server_send: the server's ``send()``.
        before: a copy of the connection scope as the server made it.
        scope: the `replswitch.scope.Scope` of the request in this attempt.
        received: the messages that the application has received; None if the request cannot run again.
        repeated: messages that an earlier attempt has received, and that this one has not received yet.
        start: the message with the status and the headers, until it is sent.
        held: the messages that are sent when the application has returned, in their order; see the option ``hold``.
        is_over: another attempt has followed. To tasks of this attempt that still run, ``receive()`` reports that the
            client has disconnected.
        discarded: the error to raise if the request may not run again after all; set when the response was discarded,
            else None.
    """

    __slots__ = (
        "asgi_scope", "before", "discarded", "frame", "held", "is_over", "middleware", "outer", "received", "repeated",
        "scope", "server_receive", "server_send", "start",
    )  # fmt: skip

    middleware: ReplicationMiddleware
    asgi_scope: ConnectionScope
    frame: Frame
    outer: Frame | None
    server_receive: Receive
    server_send: Send
    before: dict[str, Any]
    scope: Scope
    received: list[Message] | None
    repeated: Sequence[Message]
    start: Message | None
    held: list[Message] | None
    is_over: bool
    discarded: Exception | None

    async def finish(self) -> _Attempt | None:
        """Send the response after the application has returned, if no part of it was sent before.

        Returns:
            the next attempt if a write in this one could not be moved (R5), else None.
        """
        if self._is_refused() and self.scope.may_run_again():
            return self.next()
        if self.discarded is not None:
            raise self.discarded
        if self.start is not None:
            messages = [self._marked_start(), *(self.held or ())]  # if there is no body, the server reports the error
            set_stack(self.outer)
            for message in messages:
                await self.server_send(message)
        return None

    async def fail(self) -> None:
        """After an error, answer a request that has written, because the server's own answer would have no marker."""
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
        middleware, asgi_scope = self.middleware, self.asgi_scope
        following = middleware._attempt(asgi_scope, frame, self.outer, self.server_receive, self.server_send)
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
        """Keep a message for a second attempt. There is no second attempt if the client sends a body or disconnects."""
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
                if self.start is not None:
                    raise ReplSwitchError(
                        "The application sent http.response.start a second time, which the ASGI specification forbids."
                    )
                self.start = message
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

    def _marked_start(self) -> Message:
        """Return the message with the status and the headers, and a marker if the request wrote."""
        scope, start, policy = self.scope, self.start, self.middleware.policy
        assert start is not None  # noqa: S101 - for the type checker
        safe = scope.safe_request
        if safe is not None and safe.refusal is not None and scope.may_run_again():
            self.discarded = committed_on_close(safe.refusal)
            raise Replay(self.discarded)
        self.start = None
        if policy.adds_nothing(scope):
            scope.answered = True
            return start
        before = self.before
        is_https = before.get("scheme") == "https"
        extra = policy.extra_headers(scope, before["method"], start["status"], is_https=is_https)
        return {**start, "headers": [*start.get("headers", ()), *encoded(extra)]} if extra else start


def _is_whole(start: Message, piece: Message) -> bool:
    """Return whether a message has the whole body. An empty message may follow, as from Starlette's middleware."""
    if not piece.get("more_body"):
        return True
    length = str(len(piece.get("body", b""))).encode()
    return any(name.lower() == b"content-length" and value == length for name, value in start.get("headers", ()))


def _is_event_stream(start: Message) -> bool:
    """Return whether the body is a stream of events. Its client needs the headers before the first event."""
    for name, value in start.get("headers", ()):
        if name in _CONTENT_TYPE:
            kind: bytes = value[: len(_EVENT_STREAM)].lower()
            return kind == _EVENT_STREAM
    return False
