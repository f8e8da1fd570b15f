"""ASGI middleware for the websockets of Channels, with the options of the setting ``REPLSWITCH``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_replswitch.conf import request_policy
from replswitch import ConfigurationError
from replswitch.request.websocket import serve_websocket

if TYPE_CHECKING:
    from replswitch.request.connection import ASGIApplication


class WebsocketMiddleware:
    """Reads and writes markers in the websockets of Channels.

    A websocket is in master state unless its code asks for a slave. Put it around everything that ``websocket`` has in
    the ``ProtocolTypeRouter``. HTTP passes unchanged: Django's own middleware switches it.

    Args:
        app: the ASGI application.

    Raises:
        ConfigurationError: it is not an application.
    """

    def __init__(self, app: ASGIApplication) -> None:
        if not callable(app):
            raise ConfigurationError(f"WebsocketMiddleware wraps an ASGI application, and {app!r} cannot be called.")
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await serve_websocket(self.app, request_policy(), scope, receive, send)
        else:
            await self.app(scope, receive, send)
