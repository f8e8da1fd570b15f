"""One side of the chaos run: a Django project on one of the backends of `django_replswitch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pymysql
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import Error, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from shared.django import DjangoSwitch

from chaos.pages import Base, answer
from chaos.server import SECRET, values_of
from django_replswitch.backends.mysql.driver import STANDS_IN_FOR

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication


class DjangoBase(DjangoSwitch):
    """See `chaos.pages.Base`."""

    error: type[BaseException] = Error

    def cursor(self) -> Any:
        """Return a cursor."""
        return connection.cursor()

    def transaction(self) -> AbstractContextManager[Any]:
        """Begin a transaction; commit it, or roll it back."""
        return transaction.atomic()


base: Base = DjangoBase()


def page(request: HttpRequest) -> HttpResponse:
    """Serve any page."""
    answered = answer(base, request.method or "", request.path, values_of(request.META))
    return HttpResponse(answered.body, status=answered.status, headers=dict(answered.headers))


urlpatterns = [re_path("", page)]


def application(given: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        given: see `chaos.on_connect.application`.
    """
    if given["driver"] == "pymysql":
        pymysql.version_info = max(pymysql.version_info, STANDS_IN_FOR)
        pymysql.install_as_MySQLdb()
    master = given["master"]
    on_postgresql = given["driver"] == "psycopg"
    timeouts = {name: master[name] for name in ("connect_timeout", "read_timeout")}
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django_replswitch.middleware.ReplicationMiddleware"],
        LOGGING_CONFIG=None,
        REPLSWITCH={name.upper(): value for name, value in given["request"].items()}
        | {name.upper(): value for name, value in given["database"].items() if name != "pool_size"},
        DATABASES={
            "default": {
                "ENGINE": f"django_replswitch.backends.{'postgresql' if on_postgresql else 'mysql'}",
                "HOST": master["host"],
                "PORT": master["port"],
                "USER": master["user"],
                "PASSWORD": master["password"],
                "NAME": master["dbname" if on_postgresql else "database"],
                "CONN_MAX_AGE": None,
                "OPTIONS": timeouts if on_postgresql else {"charset": "utf8mb4", **timeouts},
                "SLAVES": [{"PORT": slave["port"], "WEIGHT": slave["weight"]} for slave in given["slaves"]],
            }
        },
    )
    django.setup()
    return get_wsgi_application()
