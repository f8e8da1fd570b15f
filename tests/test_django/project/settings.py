"""The settings of the project. Where the servers are, conftest.py fills in when it has started them.

A test that needs other settings runs a process of its own, or overrides them.
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from tests.test_django.project.served import ENGINE, hide_the_other

hide_the_other()

SECRET_KEY = "a long random string of the tests"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.sessions", "tests.test_django.project"]
MIDDLEWARE = ["django_replswitch.middleware.ReplicationMiddleware"]
ROOT_URLCONF = "tests.test_django.project.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
SESSION_ENGINE = "django_replswitch.sessions"
REPLSWITCH: dict[str, Any] = {}
_TASKS = f"django{'.' if django.VERSION >= (6, 0) else '_'}tasks.backends"
TASKS = {  # with Django 5.2, the backport reads them
    "default": {
        "BACKEND": "django_replswitch.tasks.TaskBackend",
        "REPLSWITCH": {"BACKEND": f"{_TASKS}.immediate.ImmediateBackend"},
    },
    "dummy": {
        "BACKEND": "django_replswitch.tasks.TaskBackend",
        "REPLSWITCH": {"BACKEND": f"{_TASKS}.dummy.DummyBackend"},
    },
    "queue": {
        "BACKEND": "django_replswitch.tasks.TaskBackend",
        "REPLSWITCH": {"BACKEND": "tests.test_django.project.tasks.QueueBackend", "MAX_AGE": 5},
    },
}


def _database(name: str) -> dict[str, Any]:
    return {"ENGINE": ENGINE, "NAME": name, "SLAVES": [{}]}


# In a process that a test starts, they are those of the test.
DATABASES: dict[str, dict[str, Any]] = json.loads(os.environ.get("PROJECT_DATABASES", "null")) or {
    "default": _database("shop"),
    "other": _database("test_other"),
}
