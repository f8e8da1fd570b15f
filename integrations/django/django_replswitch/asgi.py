"""ASGI middleware for the consumers of Channels, with the options of the setting ``REPLSWITCH``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings

from django_replswitch.conf import consumer_policy
from django_replswitch.middleware import asettle
from replswitch import ConfigurationError
from replswitch.request.asgi import ReplicationMiddleware
from replswitch.request.websocket import serve_websocket
from replswitch.state import stack

if TYPE_CHECKING:
    from replswitch.request.connection import ASGIApplication


class WebsocketMiddleware:
    """Reads and writes markers in the websockets of Channels.

    A websocket is in master state unless its code asks for a slave. Put this middleware around the whole
    application that the ``ProtocolTypeRouter`` has under ``websocket``. HTTP requests pass unchanged, because the
    middleware in ``MIDDLEWARE`` switches them.

    Args:
        app: the ASGI application.

    Raises:
        ConfigurationError: ``app`` is not an application.
    """

    def __init__(self, app: ASGIApplication) -> None:
        if not callable(app):
            raise ConfigurationError(
                f"WebsocketMiddleware needs an ASGI application, but {app!r} cannot be called. Give the application "
                "itself: WebsocketMiddleware(app)."
            )
        self.app = _settling(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            policy = consumer_policy()
            await serve_websocket(self.app, policy, scope, receive, send, policy.override(scope))
        else:
            await self.app(scope, receive, send)


class HttpConsumerMiddleware(ReplicationMiddleware):
    """Does the work of `django_replswitch.middleware` for an HTTP consumer of Channels, which bypasses ``MIDDLEWARE``.

    Put this middleware around each route to such a consumer, and not around Django's own application. The function in
    the option ``OVERRIDE`` is not called, because it takes an HttpRequest. If a write cannot be moved to the master,
    the request does not run again (R5). Instead, SlaveWriteError is raised, and the next request to the same path
    begins on the master.

    Args:
        app: the consumer, as an ASGI application.

    Raises:
        ConfigurationError: ``app`` is not an application.
    """

    def __init__(self, app: ASGIApplication) -> None:
        super().__init__(app, settings.SECRET_KEY)
        self.app = _settling(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection, with the current settings."""
        self.policy = consumer_policy()
        await super().__call__(scope, receive, send)


def _settling(app: ASGIApplication) -> ASGIApplication:
    """Wrap an application. The wrapper finds out what was written before it passes on a message or an error.

    Otherwise the middleware would query the server in the event loop's thread, and would block the loop.
    """

    async def settled(scope: Any, receive: Any, send: Any) -> None:
        frame = stack()
        if frame is None:
            await app(scope, receive, send)
            return

        async def send_settled(message: Any) -> None:
            await asettle(frame.scope)
            await send(message)

        try:
            await app(scope, receive, send_settled)
        except Exception:
            await asettle(frame.scope)
            raise

    return settled
