"""The settings of the project. Where the servers are, conftest.py fills in when it has started them.

A test that needs other settings runs a process of its own, or overrides them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from replswitch.testing import MariaDBPair

if os.environ.get("PROJECT_WITHOUT_MYSQLCLIENT"):
    sys.modules["MySQLdb"] = None  # type: ignore[assignment]  # as if it were not installed; PyMySQL replaces it

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


def _database(name: str) -> dict[str, Any]:
    return {"ENGINE": "django_replswitch.backends.mysql", "NAME": name, "SLAVES": [{}]}


# In a process that a test starts, they are those of the test.
DATABASES: dict[str, dict[str, Any]] = json.loads(os.environ.get("PROJECT_DATABASES", "null")) or {
    "default": _database(MariaDBPair.database),
    "other": _database("test_other"),
}
