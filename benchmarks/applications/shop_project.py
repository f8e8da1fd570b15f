"""A shop with django-oscar, as its manual sets one up, and with ATOMIC_REQUESTS."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path

from applications.django_settings import database, documented, stand_in
from applications.serving import SECRET

urlpatterns: list[URLPattern | URLResolver] = []


def set_up(given: dict[str, Any]) -> None:
    """Make Django ready, with the shop on the servers that the process is given."""
    stand_in(given["driver"])
    folder = Path(given["folder"])
    defaults = vars(import_module("oscar.defaults"))
    shop = {name: value for name, value in defaults.items() if name.startswith("OSCAR_")}
    apps = [*import_module("oscar").INSTALLED_APPS, "sorl.thumbnail"]
    settings.configure(
        **documented(given, shop | _settings(folder, apps)),
        DATABASES={
            "default": database(
                given,
                given["master"]["database"],
                ATOMIC_REQUESTS=True,
                CONN_MAX_AGE=60,
                OPTIONS={"charset": "utf8mb4"},
            )
        },
    )
    django.setup()
    urlpatterns.extend(
        [
            path("i18n/", include("django.conf.urls.i18n")),
            path("", include(import_module("django.apps").apps.get_app_config("oscar").urls[0])),
        ]
    )


def _settings(folder: Path, apps: list[str]) -> dict[str, Any]:
    return {
        "SECRET_KEY": SECRET,
        "ALLOWED_HOSTS": ["*"],
        "ROOT_URLCONF": __name__,
        "SITE_ID": 1,
        "USE_TZ": True,
        "LANGUAGE_CODE": "en-gb",
        "STATIC_URL": "/static/",
        "MEDIA_URL": "/media/",
        "MEDIA_ROOT": str(folder / "media"),
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend",
        "LOGIN_REDIRECT_URL": "/accounts/",
        "INSTALLED_APPS": apps,
        "MIDDLEWARE": [
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "oscar.apps.basket.middleware.BasketMiddleware",
            "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
        ],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.template.context_processors.i18n",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                        "oscar.apps.search.context_processors.search_form",
                        "oscar.apps.checkout.context_processors.checkout",
                        "oscar.apps.communication.notifications.context_processors.notifications",
                        "oscar.core.context_processors.metadata",
                    ]
                },
            }
        ],
        "AUTHENTICATION_BACKENDS": [
            "oscar.apps.customer.auth_backends.EmailBackend",
            "django.contrib.auth.backends.ModelBackend",
        ],
        "HAYSTACK_CONNECTIONS": {
            "default": {
                "ENGINE": "haystack.backends.whoosh_backend.WhooshEngine",
                "PATH": str(folder / "index"),
                "INCLUDE_SPELLING": True,
            }
        },
        "LOGGING": {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"handlers": ["console"], "level": "WARNING"},
        },
    }
