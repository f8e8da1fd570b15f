"""The settings of the shop. Those for replswitch are marked."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

# `__main__.py` has started the servers. In a project of yours this reads, for instance:
#     "ENGINE": "django_replswitch.backends.mysql", "HOST": "master.db", …, "SLAVES": [{"HOST": "slave.db"}]
DATABASES = {
    "default": {
        "ENGINE": os.environ["SHOP_ENGINE"],  # replswitch: the backend
        **json.loads(os.environ["SHOP_MASTER"]),
        "SLAVES": json.loads(os.environ["SHOP_SLAVES"]),  # replswitch: settings left out are those of the master
    }
}

MIDDLEWARE = [
    "django_replswitch.middleware.ReplicationMiddleware",  # replswitch: first
    "shop_django.shown.QueriesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

SESSION_ENGINE = "django_replswitch.sessions"  # replswitch: sessions are read on the master

REPLSWITCH = {  # replswitch: its options
    "COOKIE_MAX_AGE": 15,  # seconds: longer than any expected lag
    "DEBUG_HEADER": True,  # each response shows its state and the reason
}

INSTALLED_APPS = [
    "django.contrib.sessions",
    "django_replswitch",  # replswitch: the system checks, and `manage.py replswitch`
    "shop_django",
]

DEBUG = True  # Django keeps the queries, and the page shows them
SECRET_KEY = secrets.token_urlsafe(50)  # also signs the markers; a new one for each run of this shop
ROOT_URLCONF = "shop_django.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "DIRS": [Path(__file__).parents[1] / "shop" / "templates"],  # those of both shops
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
