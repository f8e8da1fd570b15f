"""One side of the chaos run: a Flask application with Flask-SQLAlchemy, whose session chooses the engine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL, CursorResult, text
from sqlalchemy.exc import DBAPIError

from chaos.pages import answer
from chaos.server import SECRET, values_of
from flask_replswitch import ReplSwitch
from replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication

db = SQLAlchemy()


class Cursor:
    """A cursor for the pages, on the session: each statement is a transaction, unless one is begun."""

    def __init__(self, base: FlaskBase) -> None:
        self._base = base
        self._rows: list[Any] = []

    def execute(self, sql: str, values: tuple[Any, ...] = ()) -> None:
        """Run a statement."""
        try:
            named = {f"p{number}": value for number, value in enumerate(values)}
            statement = text(sql.replace("%s", "{}").format(*(f":{name}" for name in named)))
            result = db.session.execute(statement, named)
            self._rows = list(result) if isinstance(result, CursorResult) and result.returns_rows else []
            if not self._base.in_transaction:
                if self._rows:  # as the end of a request does: the rows are read
                    db.session.rollback()
                else:
                    db.session.commit()
        except BaseException:
            if not self._base.in_transaction:
                db.session.rollback()
            raise

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows

    def fetchone(self) -> Any:
        """Return the first row."""
        return self._rows[0]

    def close(self) -> None:
        """Do nothing."""


class FlaskBase:
    """See `chaos.pages.Base`; one for each request."""

    error: type[BaseException] = DBAPIError

    def __init__(self) -> None:
        self.in_transaction = False

    def cursor(self) -> Any:
        """Return a cursor."""
        return Cursor(self)

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""
        return use_master()

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""
        return use_slave()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction; commit it, or roll it back."""
        self.in_transaction = True
        try:
            yield
            db.session.commit()
        except BaseException:
            db.session.rollback()
            raise
        finally:
            self.in_transaction = False


def page(path: str) -> Response:
    """Serve any page."""
    answered = answer(FlaskBase(), request.method, f"/{path}", values_of(request.environ))
    return Response(answered.body, answered.status, answered.headers)


def url(parameters: dict[str, Any], driver: str) -> URL:
    """Return the address of a server, in the form that SQLAlchemy expects."""
    dialect = {"pymysql": "mysql+pymysql", "mysqlclient": "mysql+mysqldb"}[driver]
    timeouts = {name: str(parameters[name]) for name in ("connect_timeout", "read_timeout")}
    names = {"username": "user", "password": "password", "host": "host", "port": "port", "database": "database"}
    return URL.create(dialect, **{name: parameters[key] for name, key in names.items()}, query=timeouts)


def application(given: dict[str, Any]) -> WSGIApplication:
    """Make the application.

    Args:
        given: see `chaos.on_connect.application`.
    """
    app = Flask(__name__)
    slaves = {f"slave{number}": slave for number, slave in enumerate(given["slaves"])}
    options = {**given["request"], **given["database"]}
    del options["pool_size"]
    app.config.update(
        SECRET_KEY=SECRET,
        SQLALCHEMY_DATABASE_URI=url(given["master"], given["driver"]),
        SQLALCHEMY_BINDS={name: url(slave, given["driver"]) for name, slave in slaves.items()},
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": given["database"]["pool_size"], "max_overflow": -1},
        REPLSWITCH_SLAVES=list(slaves),
        **{f"REPLSWITCH_{name.upper()}": value for name, value in options.items()},
    )
    db.init_app(app)
    ReplSwitch(app)
    app.add_url_rule("/<path>", view_func=page, methods=["GET", "POST"])
    return app
