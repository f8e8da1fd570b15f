"""WSGI middleware that chooses a request's state, and adds a marker to the response after a write. See PEP 3333."""

from replswitch.request.wsgi import ReplicationMiddleware

__all__ = ["ReplicationMiddleware"]
