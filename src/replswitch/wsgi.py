"""WSGI middleware: choose the state of a request, and add a marker to its response if it wrote. See PEP 3333."""

from replswitch.request.wsgi import ReplicationMiddleware

__all__ = ["ReplicationMiddleware"]
