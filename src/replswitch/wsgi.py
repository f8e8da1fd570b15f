"""WSGI middleware: picks the state of a request, and marks the response of one that wrote. See PEP 3333."""

from replswitch.request.wsgi import ReplicationMiddleware

__all__ = ["ReplicationMiddleware"]
