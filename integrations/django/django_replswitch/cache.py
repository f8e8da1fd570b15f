"""``"BACKEND": "django_replswitch.cache.DatabaseCache"``: Django's database cache, read and written on the master.

The table, its rows and its options are those of ``django.core.cache.backends.db.DatabaseCache``.
"""

from __future__ import annotations

from django.core.cache.backends import db

from django_replswitch.on_master import on_master


# All other methods, including those for asynchronous code, call these.
@on_master("cache", "get_many", "set", "add", "touch", "delete", "delete_many", "has_key", "clear")
class DatabaseCache(db.DatabaseCache):
    """Django's database cache, on the master."""
