"""``ENGINE = "django_replswitch.backends.postgresql"``: Django's PostgreSQL backend, on a master and its slaves."""
