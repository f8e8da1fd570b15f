"""Django's settings for one run. What differs between the two is handed over by `suite_run`."""

from __future__ import annotations

import json
import os
from typing import Any

_run: dict[str, Any] = json.loads(os.environ["DJANGO_SUITE"])


def _database(name: str) -> dict[str, Any]:
    master: dict[str, Any] = _run["master"]
    database = {
        "ENGINE": _run["engine"],
        "NAME": name,
        "USER": master["user"],
        "PASSWORD": master["password"],
        "HOST": master["host"],
        "PORT": master["port"],
    }
    if _run["driver"] in {"mysqlclient", "pymysql"}:
        database["TEST"] = {"CHARSET": "utf8mb4"}
    if _run["driver"] == "pymysql":
        # Or it loads the system's certificates for each connection, which takes longer than most of the tests.
        database["OPTIONS"] = {"ssl_disabled": True}
    if _run["slaves"]:
        database["SLAVES"] = [{"HOST": slave["host"], "PORT": slave["port"]} for slave in _run["slaves"]]
    return database


DATABASES = {"default": _database(_run["name"]), "other": _database(_run["name"] + "_other")}
SECRET_KEY = "not-a-secret"  # Django's tests write it into settings between single quotes
# As in Django's test_sqlite.py: the suite expects these.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

TEST_RUNNER = "tests.django_suite.suite_runner.RecordingRunner"
SUITE_RECORD = _run["record"]
