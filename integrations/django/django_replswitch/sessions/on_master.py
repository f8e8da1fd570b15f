"""Run the database queries of a session store on the master, without a marker for the visitor (M1)."""

from __future__ import annotations

from django.contrib.sessions.backends.base import SessionBase

from django_replswitch.on_master import on_master


@on_master("session", "load", "exists", "create", "save", "delete", "clear_expired")
@on_master("session", "aload", "aexists", "acreate", "asave", "adelete", "aclear_expired")
class OnMaster(SessionBase):
    """A mixin for a session store. It runs the store's database methods on the master."""
