"""The views. No view names a server; two of them choose the master or a slave, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, redirect, render_template, request, session, url_for
from sqlalchemy import select

from flask_replswitch import use_master, use_slave

from .models import Article, db

if TYPE_CHECKING:
    from sqlalchemy import Select
    from werkzeug.wrappers import Response

shop = Blueprint("shop", __name__, template_folder="../shop/templates")  # those of both shops


@shop.get("/")
def articles() -> str:
    """Show all articles. A GET: it reads from a slave that has the latest purchase of the visitor."""
    return page(select(Article))


@shop.post("/buy/<int:number>")
def buy(number: int) -> Response:
    """Buy an article. A POST: everything runs on the master, and the visitor gets a marker."""
    article = db.session.get(Article, number, with_for_update=True) or abort(404)
    if article.stock:
        article.stock -= 1
        db.session.commit()
        session["basket"] = [*session.get("basket", []), article.name]
    return redirect(url_for("shop.articles"))


@shop.post("/search")
@use_slave
def search() -> str:
    """Show the matching articles. The form is sent by POST, but the view only reads, so a slave can serve it."""
    wanted = request.form.get("wanted", "")
    return page(select(Article).where(Article.name.icontains(wanted, autoescape=True)), wanted)


@shop.get("/stock/<int:number>")
@use_master
def stock(number: int) -> tuple[str, dict[str, str]]:
    """Show the number in stock. It is a GET, but an old number would be wrong, so the master serves it."""
    article = db.session.get(Article, number) or abort(404)
    return f"{article.stock} of {article.name}\n", {"Content-Type": "text/plain; charset=utf-8"}


def page(wanted_articles: Select[Any], wanted: str = "") -> str:
    """Return the page."""
    found = db.session.scalars(wanted_articles.order_by(Article.name)).all()
    return render_template("shop.html", articles=found, basket=session.get("basket", []), wanted=wanted)
