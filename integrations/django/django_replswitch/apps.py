"""``"django_replswitch"`` in ``INSTALLED_APPS``: the system checks, and ``manage.py replswitch``."""

from __future__ import annotations

from django.apps import AppConfig


class ReplSwitchConfig(AppConfig):
    """replswitch as a Django application. It has no models."""

    name = "django_replswitch"
    verbose_name = "replswitch"

    def ready(self) -> None:
        """Register the system checks."""
        from django_replswitch import checks  # noqa: F401, PLC0415 - its import registers them, after Django's setup
