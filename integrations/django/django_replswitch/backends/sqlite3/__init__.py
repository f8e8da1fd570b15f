"""``ENGINE = "django_replswitch.backends.sqlite3"``: Django's SQLite backend, on a master and its slaves.

For development and tests: SQLite does not replicate.
"""
