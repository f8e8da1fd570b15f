"""System checks: what is set up so that it would go wrong quietly.

They are registered when this package is imported: with the backend, and by ``"django_replswitch"`` in
``INSTALLED_APPS``. Every id, and what to do about it, is in ``docs/django.md``.
"""

from __future__ import annotations

from django_replswitch.checks import servers, settings

__all__ = ["servers", "settings"]
