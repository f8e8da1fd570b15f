"""Runs the shop: ``python examples/shop_django``; ``--help`` tells the options."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replswitch.testing import MariaDBPair, PairError, SQLitePair

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        prog="python examples/shop_django",
        description="A shop in Django on a master and a lagging slave: an example of replswitch.",
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
    """Do what ``manage.py migrate``, ``manage.py replswitch`` and ``manage.py runserver`` do."""
    engine = "sqlite3" if isinstance(pair, SQLitePair) else "mysql"
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "shop_django.settings",
        "DJANGO_RUNSERVER_HIDE_WARNING": "true",
        "SHOP_ENGINE": f"django_replswitch.backends.{engine}",
        "SHOP_MASTER": json.dumps(as_django_has_it(pair.master)),
        "SHOP_SLAVES": json.dumps([as_django_has_it(slave) for slave in pair.slaves]),
    }
    import django  # noqa: PLC0415 - the settings had to wait for the servers
    from django.core.management import call_command  # noqa: PLC0415 - likewise

    django.setup()
    call_command("migrate", verbosity=0)
    pair.wait_caught_up()
    call_command("replswitch")
    pair.lag = LAG
    print(f"From now on the slave stays {LAG} s behind.", flush=True)
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)


def as_django_has_it(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a driver's settings under the names that they have in DATABASES."""
    return {"NAME" if name == "database" else name.upper(): value for name, value in settings.items()}


if __name__ == "__main__":
    # Python put this folder on its path; the package is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(main())
