"""``ENGINE = "django_replswitch.backends.sqlite3"``: Django's SQLite backend, on a master and its slaves.

It is for development and tests only, because SQLite does not replicate.
"""
