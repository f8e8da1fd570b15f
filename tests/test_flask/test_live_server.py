"""Flask under a threaded server, with real clients in parallel, on a pair that really lags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from flask import redirect, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from tests.test_wsgi.test_live_server import CLIENTS, check_visits, served

from flask_replswitch import ReplSwitch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.typing import ResponseReturnValue
    from tests.test_flask.conftest import Board, NewApp


def visit(app: Flask) -> None:
    """Serve visitors for a while, on a pair whose slave lags."""
    with served(app) as port:
        check_visits(port)


def test_m1_parallel_clients_with_connect_miss_no_own_write(board: Board) -> None:
    board.pair.lag = 1
    board.app.config.update(TESTING=False)

    def view() -> ResponseReturnValue:
        if "stream" not in request.args:
            served_by: ResponseReturnValue = board.serve()
            return served_by

        def pieces() -> Iterator[str]:
            yield from (f"{number} " for number in board.numbers().split())

        return pieces()

    board.app.view_functions["board"] = view
    visit(board.app)


def test_m1_parallel_clients_with_flask_sqlalchemy_miss_no_own_write(board: Board, new_app: NewApp) -> None:
    master, slave = (
        sa.URL.create("mysql+pymysql", each["user"], each["password"], each["host"], each["port"], each["database"])
        for each in (board.pair.master, board.pair.slaves[0])
    )
    app = new_app(
        SQLALCHEMY_DATABASE_URI=master,
        SQLALCHEMY_BINDS={"slave": slave},
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": CLIENTS},
        REPLSWITCH_SLAVES=["slave"],
        TESTING=False,
    )
    db = SQLAlchemy()
    db.init_app(app)
    ReplSwitch(app)

    @app.get("/")
    def read() -> ResponseReturnValue:
        found = db.session.scalars(sa.text("SELECT n FROM flask_message ORDER BY n"))
        if "stream" in request.args:
            return stream_with_context(f"{number} " for number in found)
        return " ".join(map(str, found))

    @app.post("/")
    def write() -> ResponseReturnValue:
        db.session.execute(sa.text("INSERT INTO flask_message VALUES (:n)"), {"n": request.args["n"]})
        db.session.commit()
        return redirect("/")

    board.pair.lag = 1
    try:
        visit(app)
    finally:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()
