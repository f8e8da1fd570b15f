"""The board alone, for tests that name it in the settings."""

from __future__ import annotations

from django.urls import path
from tests.test_django.requests.board import board

urlpatterns = [path("", board)]
