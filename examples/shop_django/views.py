"""The views. No view names a server; two of them choose the master or a slave, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from django_replswitch.decorators import use_master, use_slave

from .models import Article

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest


@require_GET
def shop(request: HttpRequest) -> HttpResponse:
    """Show all articles. A GET: it reads from a slave, or from the master if the visitor has just bought something."""
    return page(request, Article.objects.all())


@require_POST
def buy(request: HttpRequest, pk: int) -> HttpResponse:
    """Buy an article. A POST: everything runs on the master, and the visitor gets a marker."""
    with transaction.atomic():
        article = get_object_or_404(Article.objects.select_for_update(), pk=pk)
        if article.stock:
            article.stock -= 1
            article.save()
            request.session["basket"] = [*request.session.get("basket", []), article.name]
    return redirect("shop")


@use_slave
@require_POST
def search(request: HttpRequest) -> HttpResponse:
    """Show the matching articles. The form is sent by POST, but the view only reads, so a slave can serve it."""
    wanted = request.POST.get("wanted", "")
    return page(request, Article.objects.filter(name__icontains=wanted), wanted)


@use_master
@require_GET
def stock(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the number in stock. It is a GET, but an old number would be wrong, so the master serves it."""
    article = get_object_or_404(Article, pk=pk)
    return HttpResponse(f"{article.stock} of {article}\n", content_type="text/plain")


def page(request: HttpRequest, articles: QuerySet[Article], wanted: str = "") -> HttpResponse:
    """Return the page."""
    basket = request.session.get("basket", [])
    context = {"articles": articles.order_by("name"), "basket": basket, "wanted": wanted}
    return render(request, "shop_django/shop.html", context)
