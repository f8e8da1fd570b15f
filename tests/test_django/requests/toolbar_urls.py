"""Views of the project in test_debug_toolbar.py."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from tests.test_django.project.models import Message

PAGE = "<html><body>page</body></html>"


def page(request: HttpRequest) -> HttpResponse:
    Message.objects.count()
    if request.method == "POST":
        Message.objects.create(body="<new>")
    return HttpResponse(PAGE)


async def apage(request: HttpRequest) -> HttpResponse:
    await Message.objects.acount()
    return HttpResponse(PAGE)


def visit(request: HttpRequest) -> HttpResponse:
    """Write after a read, in one transaction."""
    with transaction.atomic():
        Message.objects.count()
        Message.objects.create(body="visit")
    return HttpResponse(PAGE)


urlpatterns = [path("", page), path("async/", apage), path("visit/", visit), *debug_toolbar_urls()]
