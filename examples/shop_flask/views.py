"""The views. None of them says on which server a query runs; two say which side they want, and why."""

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
    """Show all articles. A GET: it reads from a slave, if one has what its visitor has just bought."""
    return page(select(Article))


@shop.post("/buy/<int:number>")
def buy(number: int) -> Response:
    """Take an article from the shelf. A POST: everything is on the master, and the visitor gets a marker."""
    article = db.session.get(Article, number, with_for_update=True) or abort(404)
    if article.stock:
        article.stock -= 1
        db.session.commit()
        session["basket"] = [*session.get("basket", []), article.name]
    return redirect(url_for("shop.articles"))


@shop.post("/search")
@use_slave
def search() -> str:
    """Show the articles that match. It is sent by POST, but only reads: a slave can do that."""
    wanted = request.form.get("wanted", "")
    return page(select(Article).where(Article.name.icontains(wanted, autoescape=True)), wanted)


@shop.get("/stock/<int:number>")
@use_master
def stock(number: int) -> tuple[str, dict[str, str]]:
    """Tell how many there are right now. It is a GET, but a stale number would be wrong: only the master will do."""
    article = db.session.get(Article, number) or abort(404)
    return f"{article.stock} of {article.name}\n", {"Content-Type": "text/plain; charset=utf-8"}


def page(wanted_articles: Select[Any], wanted: str = "") -> str:
    """Return the page."""
    found = db.session.scalars(wanted_articles.order_by(Article.name)).all()
    return render_template("shop.html", articles=found, basket=session.get("basket", []), wanted=wanted)
