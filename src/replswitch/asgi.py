"""ASGI middleware: choose the state of a request, and add a marker to its response if it wrote. See the ASGI 3 spec."""

from replswitch.request.asgi import ReplicationMiddleware

__all__ = ["ReplicationMiddleware"]
