"""Binds replswitch to Django. Empty so far: the backend, the middleware and the sessions are still to come."""
