"""ASGI middleware that chooses a request's state, and adds a marker to the response after a write."""

from replswitch.request.asgi import ReplicationMiddleware

__all__ = ["ReplicationMiddleware"]
