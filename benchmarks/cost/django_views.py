"""The views of the benchmarks' Django project; to be imported once Django is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path

if TYPE_CHECKING:
    from django.http import HttpRequest


class Message(models.Model):
    """The model of the views."""

    body: models.TextField[str, str] = models.TextField()

    class Meta:
        """The application is no other than this module."""

        app_label = "benchmark"

    def __str__(self) -> str:
        return self.body


def empty(request: HttpRequest) -> HttpResponse:
    """Answer without a query."""
    return HttpResponse(b"Hello world!")


def message(request: HttpRequest) -> HttpResponse:
    """Answer a GET with one query; a POST writes one row and redirects."""
    if request.method == "POST":
        Message.objects.create(body="hello")
        return HttpResponseRedirect("/message")
    return HttpResponse(Message.objects.get(pk=1).body)


urlpatterns = [path("empty", empty), path("message", message)]
