"""Shows the server of each query at the end of the page. The views do not know of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, g, has_request_context, render_template, request
from sqlalchemy import event

from .models import db

if TYPE_CHECKING:
    from flask import Response
    from sqlalchemy import Engine


class Query(NamedTuple):
    """A statement, the side that it ran on, and that server's name."""

    db: str
    server: str
    sql: str


class Request(NamedTuple):
    """A request, and its queries."""

    method: str
    path: str
    queries: list[Query]


def init_app(app: Flask) -> None:
    """Listen to the engines of the shop, and put the latest requests in front of ``</body>``."""
    latest: deque[Request] = deque(maxlen=8)
    with app.app_context():
        for key, engine in db.engines.items():
            _listen(engine, "master" if key is None else "slave")

    @app.after_request
    def show(response: Response) -> Response:
        latest.appendleft(Request(request.method, request.full_path.rstrip("?"), g.get("queries", [])))
        if response.mimetype == "text/html":
            shown = render_template("shown.html", requests=list(latest))
            response.set_data(response.get_data(as_text=True).replace("</body>", f"{shown}</body>"))
        return response


def _listen(engine: Engine, side: str) -> None:
    url = engine.url
    server = f"{url.host}:{url.port}" if url.host else str(url.database).rpartition("/")[2]

    @event.listens_for(engine, "after_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if has_request_context():
            g.setdefault("queries", []).append(Query(side, server, statement))
