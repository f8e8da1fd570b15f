"""One side: a Django project on `django_replswitch.backends.mysql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pymysql
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from shared.django import DjangoSwitch

from django_replswitch.backends.mysql.driver import STANDS_IN_FOR
from processes.pages import SECRET, Pages

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from processes.pages import Values


class Project(DjangoSwitch):
    """See `processes.pages.Base`."""

    def rows(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        """Read."""
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return [tuple(row) for row in cursor.fetchall()]

    def write(self, sql: str, values: Values) -> None:
        """Write, and commit."""
        with connection.cursor() as cursor:
            cursor.execute(sql, values)


pages = Pages(Project())


def page(request: HttpRequest) -> HttpResponse:
    """Serve any page."""
    answer = pages.answer(request.method or "", request.path, request.GET.dict())
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


urlpatterns = [re_path("", page)]


def make(given: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        given: ``driver``, ``master``, ``slaves``; ``greenlets``: whether each request is a greenlet of its own.
    """
    if given["driver"] == "pymysql":
        pymysql.version_info = max(pymysql.version_info, STANDS_IN_FOR)
        pymysql.install_as_MySQLdb()
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "database"}
    master, *slaves = [
        {name: server[key] for name, key in names.items()} for server in (given["master"], *given["slaves"])
    ]
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django_replswitch.middleware.ReplicationMiddleware"],
        LOGGING_CONFIG=None,
        DATABASES={
            "default": {
                "ENGINE": "django_replswitch.backends.mysql",
                **master,
                # A greenlet runs one request, so no later request uses its connection.
                "CONN_MAX_AGE": 0 if given["greenlets"] else None,
                "SLAVES": slaves,
            }
        },
    )
    django.setup()
    application = get_wsgi_application()
    pages.open_links()
    return application
