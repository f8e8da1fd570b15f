"""One side: a Flask application with Flask-SQLAlchemy, whose session chooses the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL, TextClause, text

from flask_replswitch import ReplSwitch
from processes.pages import SECRET, Pages
from replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication

    from processes.pages import Values

DIALECTS = {"pymysql": "mysql+pymysql", "mysqlclient": "mysql+mysqldb"}

db = SQLAlchemy()


def as_text(sql: str) -> TextClause:
    """Return a statement with its parameters as SQLAlchemy writes them."""
    return text(re.sub(r"%\((\w+)\)s", r":\1", sql))


class Session:
    """See `processes.pages.Base`."""

    def rows(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        """Read."""
        return [tuple(row) for row in db.session.execute(as_text(sql), dict(values))]

    def write(self, sql: str, values: Values) -> None:
        """Write, and commit."""
        db.session.execute(as_text(sql), dict(values))
        db.session.commit()

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""
        return use_master()

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""
        return use_slave()


pages = Pages(Session())


def page(path: str) -> Response:
    """Serve any page."""
    answer = pages.answer(request.method, f"/{path}", request.args.to_dict())
    return Response(answer.body, answer.status, answer.headers)


def url(server: dict[str, Any], driver: str) -> URL:
    """Return the address of a server, in the form that SQLAlchemy expects."""
    names = {"username": "user", "password": "password", "host": "host", "port": "port", "database": "database"}
    return URL.create(DIALECTS[driver], **{name: server[key] for name, key in names.items()})


def make(settings: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        settings: ``driver``, ``master``, ``slaves``.
    """
    app = Flask(__name__, static_folder=None)
    slaves = {f"slave{number}": slave for number, slave in enumerate(settings["slaves"])}
    app.config.update(
        SECRET_KEY=SECRET,
        SQLALCHEMY_DATABASE_URI=url(settings["master"], settings["driver"]),
        SQLALCHEMY_BINDS={name: url(slave, settings["driver"]) for name, slave in slaves.items()},
        REPLSWITCH_SLAVES=list(slaves),
    )
    db.init_app(app)
    ReplSwitch(app)
    app.add_url_rule("/<path>", view_func=page, methods=["GET", "POST"])
    with app.app_context():
        pages.open_links()
    return app
