"""Errors of replswitch that are also errors of Django."""

from __future__ import annotations

from django.db import DatabaseError, OperationalError

from replswitch import NoServerError, SlaveWriteError


class NoMasterError(NoServerError, OperationalError):
    """No server can serve the statement. Usually the master cannot be reached or is read-only."""


class RefusedWriteError(SlaveWriteError, DatabaseError):
    """A write reached a slave and could not be moved to the master."""
