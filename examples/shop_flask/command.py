"""The command line: starts the throw-away servers, and serves the shop on them."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Any

from flask.cli import ScriptInfo
from sqlalchemy import URL
from werkzeug.serving import make_server

from replswitch.testing import MariaDBPair, PairError, SQLitePair

from .application import create_app
from .models import FIRST_STOCK, Article, Base, db

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask

    from replswitch.testing import ReplicatedPair

LAG = 3


def main() -> int:
    """Run the shop until Ctrl-C. Return the exit code."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with start_servers(options.database) as pair:
            serve(pair, options.port)
    except PairError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/shop_flask",
        description="A shop in Flask on a master and a lagging slave: an example of replswitch.",
    )
    parser.add_argument("--port", type=int, default=8000, help="the port; 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--database",
        choices=("auto", "mariadb", "sqlite"),
        default="auto",
        help="what the servers are; auto is MariaDB where mariadbd is installed, and SQLite otherwise (default: auto)",
    )
    return parser.parse_args()


def start_servers(database: str) -> ReplicatedPair:
    """Start a master and a slave, and say what they are."""
    if database != "sqlite":
        mariadb = MariaDBPair()
        try:
            mariadb.start()
        except PairError as error:
            if database == "mariadb":
                raise
            print(f"No MariaDB: {error}")
        else:
            print("Two MariaDB servers were started.")
            return mariadb
    print("Two SQLite files are used, of which one follows the other.")
    sqlite = SQLitePair()
    sqlite.start()
    return sqlite


def serve(pair: ReplicatedPair, port: int) -> None:
    """Make the shop and fill it, do what ``flask replswitch`` does, and serve it."""
    app = create_app(address(pair.master), [address(slave) for slave in pair.slaves])
    fill(app)
    pair.wait_caught_up()
    app.cli.main(["replswitch"], obj=ScriptInfo(create_app=lambda: app), standalone_mode=False)
    pair.lag = LAG
    print(f"From now on the slave stays {LAG} s behind.", flush=True)
    server = make_server("127.0.0.1", port, app, threaded=True)
    print(f"The shop is open: http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


def fill(app: Flask) -> None:
    """Make the table, and put the first articles into it."""
    with app.app_context():
        Base.metadata.create_all(db.engine)
        db.session.add_all(Article(name=name, stock=stock) for name, stock in FIRST_STOCK)
        db.session.commit()


def address(settings: Mapping[str, Any]) -> str:
    """Return a driver's settings as the address that SQLAlchemy takes."""
    if "host" not in settings:
        return f"sqlite:///{settings['database']}"
    url = URL.create(
        "mysql+pymysql",
        settings["user"],
        settings["password"],
        settings["host"],
        settings["port"],
        settings["database"],
    )
    return url.render_as_string(hide_password=False)
