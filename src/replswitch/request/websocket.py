"""Serve a websocket. The answer to its handshake gets a marker if something was written.

For each message, the servers are chosen again, as for a new request.

https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from replswitch.request.connection import encoded, read_headers
from replswitch.state import set_stack, stack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replswitch.request.connection import ASGIApplication, ConnectionScope, Headers, Message, Receive, Send
    from replswitch.request.policy import RequestPolicy
    from replswitch.state import Frame

_ACCEPT: Final = "websocket.accept"

# With this extension, a handshake can be refused with headers.
_REFUSAL: Final = "websocket.http.response"

# The status of a handshake that is accepted.
_SWITCHING_PROTOCOLS: Final = 101


async def serve_websocket(
    app: ASGIApplication,
    policy: RequestPolicy,
    asgi_scope: ConnectionScope,
    receive: Receive,
    send: Send,
    override: object = None,
) -> None:
    """Serve one websocket.

    Args:
        app: the application.
        policy: the application's policy.
        asgi_scope: the connection scope from the server.
        receive: the server's ``receive()``.
        send: the server's ``send()``.
        override: the result of `RequestPolicy.override` for the handshake.

    Raises:
        ConfigurationError: ``override`` is neither a state nor None.
    """
    cookies, header, _ = read_headers(asgi_scope["headers"])
    outer = stack()
    frame = policy.begin_socket(cookies, header, override)
    socket = _Socket(policy, asgi_scope, frame, outer, receive, send)
    socket.override = override
    set_stack(frame)
    try:
        await app(asgi_scope, socket.receive, socket.send)
    except Exception:
        with suppress(Exception):  # the client may be gone
            await socket.fail()
        raise
    finally:
        try:
            frame.scope.end()
        finally:
            set_stack(outer)


class _Socket:
    """One websocket. The state is in force only while the application runs (S9), as in HTTP.

    Args:
        policy: the application's policy.
        asgi_scope: the connection scope from the server.
        frame: the frame of the websocket, which sets its state.
        outer: the stack in which the server has called the middleware.
        receive: the server's ``receive()``.
        send: the server's ``send()``.

    Attributes:
        scope: the `replswitch.scope.Scope` of the websocket.
        override: the result of `RequestPolicy.override` for the handshake.
    """

    __slots__ = (
        "_asgi_scope", "_is_https", "_may_refuse", "_outer", "_policy", "_receive", "_send", "override", "scope",
    )  # fmt: skip

    def __init__(
        self,
        policy: RequestPolicy,
        asgi_scope: ConnectionScope,
        frame: Frame,
        outer: Frame | None,
        receive: Receive,
        send: Send,
    ) -> None:
        self._policy, self._outer, self._receive, self._send = policy, outer, receive, send
        self._asgi_scope = asgi_scope
        self._is_https = asgi_scope.get("scheme") == "wss"
        self._may_refuse = _REFUSAL in (asgi_scope.get("extensions") or ())
        self.scope = frame.scope
        self.override: object = None

    async def receive(self) -> Message:
        """Return the next message of the client."""
        received: Message = await self._outside(self._receive)
        return received

    async def send(self, message: Message) -> None:
        """Send a message to the client. The answer to the handshake gets a marker if the websocket has written."""
        kind = message["type"]
        if self.scope.answered:
            await self._outside(self._send, message)
        elif kind in {_ACCEPT, f"{_REFUSAL}.start"}:
            added = self._headers(message.get("status", _SWITCHING_PROTOCOLS))
            if kind == _ACCEPT:
                self.scope.open()
            await self._outside(self._send, {**message, "headers": [*message.get("headers", ()), *added]})
        elif kind != "websocket.close" or not await self._refuse(403):
            await self._outside(self._send, message)

    async def fail(self) -> None:
        """Answer the handshake after an error of the application, because the server's answer would have no marker."""
        if not self.scope.answered:
            await self._refuse(500)

    async def _refuse(self, status: int) -> bool:
        """Refuse the handshake, with a marker.

        Returns:
            False if the server must refuse the handshake, because nothing was written or headers cannot be sent with a
            refusal.
        """
        self.scope.hand_back()
        if self.scope.wrote is None or not self._may_refuse:
            return False
        start = {"type": f"{_REFUSAL}.start", "status": status, "headers": self._headers(status)}
        await self._outside(self._send, start)
        await self._outside(self._send, {"type": f"{_REFUSAL}.body", "body": b""})
        return True

    def _headers(self, status: int) -> Headers:
        return encoded(self._policy.extra_headers(self.scope, "GET", status, is_https=self._is_https))

    async def _outside(self, call: Callable[..., Awaitable[Any]], *arguments: Message) -> Any:
        """Call a function of the server, in the server's stack.

        If the websocket is open, give its connections back before the call, and choose its servers again after it.
        """
        scope, inner = self.scope, stack()
        if scope.is_open:
            scope.rest()
        set_stack(self._outer)
        try:
            return await call(*arguments)
        finally:
            set_stack(inner)
            if scope.is_open:
                self._policy.renew(scope, self.override, self._asgi_scope)
