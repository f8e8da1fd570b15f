"""The command line: it creates and fills the table, does what ``flask replswitch`` does, and serves the shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask.cli import ScriptInfo
from shop.addresses import address
from shop.command import begin_lag, run
from werkzeug.serving import make_server

from .application import create_app
from .models import FIRST_STOCK, Article, Base, db

if TYPE_CHECKING:
    from flask import Flask

    from replswitch.testing import ReplicatedPair

DRIVERS = {"mysql": "pymysql", "postgresql": "psycopg", "sqlite": "pysqlite"}


def main() -> int:
    """Run the shop until Ctrl-C. Return the exit code."""
    return run("shop_flask", "Flask", serve)


def serve(pair: ReplicatedPair, port: int) -> None:
    """Fill the shop, print what the servers are, and serve it."""
    app = create_app(address(pair.master, DRIVERS), [address(slave, DRIVERS) for slave in pair.slaves])
    fill(app)
    pair.wait_caught_up()
    app.cli.main(["replswitch"], obj=ScriptInfo(create_app=lambda: app), standalone_mode=False)
    begin_lag(pair)
    server = make_server("127.0.0.1", port, app, threaded=True)
    print(f"The shop is open: http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


def fill(app: Flask) -> None:
    """Create the table, and add the first articles."""
    with app.app_context():
        Base.metadata.create_all(db.engine)
        db.session.add_all(Article(name=name, stock=stock) for name, stock in FIRST_STOCK)
        db.session.commit()
