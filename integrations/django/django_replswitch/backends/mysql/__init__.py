"""``ENGINE = "django_replswitch.backends.mysql"``: Django's MySQL backend, on a master and its slaves."""
