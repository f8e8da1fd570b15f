"""``SESSION_ENGINE = "django_replswitch.sessions"``: Django's database sessions, read and written on the master.

Rows, cookies and the table are those of ``django.contrib.sessions.backends.db``.
"""

from __future__ import annotations

from django.contrib.sessions.backends import db

from django_replswitch.sessions.on_master import OnMaster


class SessionStore(OnMaster, db.SessionStore):
    """Django's database session, on the master."""
