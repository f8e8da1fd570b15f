"""A process with one side of `consistency.command`: an application on a pair of servers, served by waitress.

Started by `consistency.sides.Side.start`. It reads from stdin, as one line of JSON, which side it is and where the
servers are, answers with its port, and ends with its stdin.

All applications do the same. ``POST /?visitor=…&number=…&status=…`` writes one row and answers with that status, a
redirect or JSON; ``GET /?visitor=…`` shows the numbers of a visitor's rows, and says which server the database took
them from: the query itself asks for ``@@server_id``, or on PostgreSQL for the port.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from cost.django_project import MULTIDB, OURS, PLAIN, REPLICATED, Project
from cost.django_worker import set_up
from shared.product import PRODUCTS
from waitress.server import create_server  # type: ignore[import-untyped]  # it has no types of its own

from consistency.answers import SECRET, answer_to_read, answer_to_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    Servers = dict[str, Any]

#: Requests that a side works on at the same time. Each may hold two connections, and MariaDB lets 151 in.
THREADS: Final = 6

READ: Final = "SELECT {server}, number FROM entry WHERE visitor = %s"
WRITE: Final = "INSERT INTO entry (visitor, number) VALUES (%s, %s)"


def connect(servers: Servers) -> WSGIApplication:
    """Return a plain WSGI application on replswitch.connect(), inside the middleware."""
    import replswitch  # noqa: PLC0415 - each side imports its own packages
    from replswitch.wsgi import ReplicationMiddleware  # noqa: PLC0415 - likewise

    product = PRODUCTS[servers["product"]]
    db = replswitch.connect(servers["master"], [servers["slave"]], driver=product.drivers[0])
    read = READ.format(server=product.server)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        visitor = int(query["visitor"])
        with db.cursor() as cursor:
            if environ["REQUEST_METHOD"] != "POST":
                cursor.execute(read, (visitor,))
                body = answer_to_read(cursor.fetchall())
                start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
                return [body]
            cursor.execute(WRITE, (visitor, int(query["number"])))
        status = HTTPStatus(int(query["status"]))
        headers, body = answer_to_write(visitor, status)
        start_response(f"{status} {status.phrase}", [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return ReplicationMiddleware(application, secret=SECRET)


def flask(servers: Servers) -> WSGIApplication:
    """Make a Flask application with Flask-SQLAlchemy and ReplSwitch."""
    from flask import Flask, Response, request  # noqa: PLC0415 - each side imports its own packages
    from flask_sqlalchemy import SQLAlchemy  # noqa: PLC0415 - likewise
    from sqlalchemy import URL, text  # noqa: PLC0415 - likewise

    from flask_replswitch import ReplSwitch  # noqa: PLC0415 - likewise

    app, db = Flask(__name__, static_folder=None), SQLAlchemy()
    product = PRODUCTS[servers["product"]]
    master, slave = (
        URL.create(
            product.dialect,
            each["user"],
            each["password"],
            each["host"],
            each["port"],
            each.get("database") or each["dbname"],
            {"options": each["options"]} if "options" in each else {},
        )
        for each in (servers["master"], servers["slave"])
    )
    app.config.update(
        SECRET_KEY=SECRET,
        SQLALCHEMY_DATABASE_URI=master,
        SQLALCHEMY_BINDS={"slave": slave},
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": THREADS},
        REPLSWITCH_SLAVES=["slave"],
    )
    db.init_app(app)
    ReplSwitch(app)
    read = text(READ.format(server=product.server).replace("%s", ":visitor"))
    write = text(WRITE.replace("(%s, %s)", "(:visitor, :number)"))

    @app.get("/")
    def show() -> Response:
        rows = db.session.execute(read, {"visitor": int(request.args["visitor"])})
        return Response(answer_to_read([tuple(row) for row in rows]), mimetype="application/json")

    @app.post("/")
    def add() -> Response:
        visitor = int(request.args["visitor"])
        db.session.execute(write, {"visitor": visitor, "number": int(request.args["number"])})
        db.session.commit()
        headers, body = answer_to_write(visitor, HTTPStatus(int(request.args["status"])))
        return Response(body, int(request.args["status"]), headers)

    return app


def connect_by_clock(servers: Servers) -> WSGIApplication:
    """Make the same on servers of which replswitch believes that they have no GTIDs."""
    # Servers without them would replicate in another way; so nothing but our own question is left out.
    connections: Any = import_module("replswitch.drivers.tracking_connection")
    assert connections.has_positions  # or nothing would be left out, silently
    connections.has_positions = lambda raw: False
    return connect(servers)


#: The driver of the other packages' Django sides on MariaDB and MySQL: what Django's manual recommends, if installed.
DRIVER: Final = "MySQLdb" if find_spec("MySQLdb") else "pymysql"


def django(built_with: str, driver: str = "") -> Callable[[Servers], WSGIApplication]:
    """Return what makes a Django project, built with one of the packages; see `django_project`."""

    def make(servers: Servers) -> WSGIApplication:
        master, slave, product = servers["master"], servers["slave"], servers["product"]
        chosen = driver or ("psycopg" if product == "PostgreSQL" else DRIVER)
        import_module(chosen)  # Django would say less clearly that it is missing
        options = {"options": master["options"]} if "options" in master else {}
        set_up(
            Project(built_with, chosen, master, slave, options=options),
            ROOT_URLCONF="consistency.views",
            SERVER_EXPRESSION=PRODUCTS[product].server,
        )
        from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415 - after the settings

        return WSGIHandler()

    return make


APPLICATIONS: Final[dict[str, Callable[[Servers], WSGIApplication]]] = {
    "connect": connect,
    "clock": connect_by_clock,
    "flask": flask,
    "django": django(OURS, "MySQLdb"),
    "django-pymysql": django(OURS, "pymysql"),
    "django-psycopg": django(OURS, "psycopg"),
    "django-psycopg2": django(OURS, "psycopg2"),
    "django-replicated": django(REPLICATED),
    "multidb-router": django(MULTIDB),
    "plain": django(PLAIN),
}
"""The function that returns the application of each side, by its name."""


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)  # whatever the threads are doing


def main() -> None:
    """Serve until stdin ends."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait for a thread is no news here
    wanted = json.loads(sys.stdin.readline())
    try:
        application = APPLICATIONS[wanted["side"]](wanted)
    except ImportError as error:
        print(json.dumps({"missing": error.name}), flush=True)
        sys.exit(1)
    server = create_server(application, host="127.0.0.1", port=0, threads=THREADS)
    print(json.dumps({"port": server.effective_port}), flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
