"""``ENGINE = "django_replswitch.backends.postgis"``: Django's PostGIS backend, on a master and its slaves."""
