"""The view of the Django sides of `consistency.command`; to be imported once Django is set up.

It reads and writes through models, because routers see nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models.expressions import RawSQL
from django.http import HttpResponse
from django.urls import path

from consistency.answers import answer_to_read, answer_to_write

if TYPE_CHECKING:
    from django.http import HttpRequest


class Entry(models.Model):
    """One write of a visitor."""

    visitor: models.IntegerField[int, int] = models.IntegerField()
    number: models.IntegerField[int, int] = models.IntegerField()

    class Meta:
        """The table is made by `consistency.command`, which serves applications without Django as well."""

        app_label = "benchmark"
        db_table = "entry"
        managed = False

    def __str__(self) -> str:
        return f"{self.visitor}: {self.number}"


def entries(request: HttpRequest) -> HttpResponse:
    """Write a row, or show the visitor's."""
    visitor = int(request.GET["visitor"])
    if request.method != "POST":
        own = Entry.objects.filter(visitor=visitor).annotate(server=RawSQL(settings.SERVER_EXPRESSION, ()))
        return HttpResponse(answer_to_read(own.values_list("server", "number")), content_type="application/json")
    Entry.objects.create(visitor=visitor, number=int(request.GET["number"]))
    status = int(request.GET["status"])
    headers, body = answer_to_write(visitor, status)
    return HttpResponse(body, status=status, headers=dict(headers))


urlpatterns = [path("", entries)]
