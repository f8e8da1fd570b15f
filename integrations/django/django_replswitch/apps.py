"""The application for ``INSTALLED_APPS``, which adds the system checks and the command ``manage.py replswitch``."""

from __future__ import annotations

from django.apps import AppConfig


class ReplSwitchConfig(AppConfig):
    """replswitch as a Django application. It has no models."""

    name = "django_replswitch"
    verbose_name = "replswitch"

    def ready(self) -> None:
        """Register the system checks."""
        from django_replswitch import checks  # noqa: F401, PLC0415 - its import registers them, after Django's setup
