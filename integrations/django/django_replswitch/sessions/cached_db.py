"""``SESSION_ENGINE = "django_replswitch.sessions.cached_db"``: sessions in Django's cache and on the master."""

from __future__ import annotations

from django.contrib.sessions.backends import cached_db

from django_replswitch.sessions.on_master import OnMaster


class SessionStore(OnMaster, cached_db.SessionStore):
    """Django's cached database session, on the master."""
