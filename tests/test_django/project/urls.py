"""No view by default: ``override_settings(ROOT_URLCONF=…)`` names a test's own."""

from __future__ import annotations

from typing import Any

urlpatterns: list[Any] = []
