"""The command line of both shops: its options, and the throw-away servers."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from replswitch.testing import MariaDBPair, PairError, SQLitePair

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.testing import ReplicatedPair

LAG = 3


def run(folder: str, framework: str, serve: Callable[[ReplicatedPair, int], None]) -> int:
    """Run a shop until Ctrl-C. Return the exit code.

    Args:
        folder: the folder of the shop, which is also how it is called.
        framework: the name of the framework.
        serve: fills the shop, and serves it on these servers and this port.
    """
    options = parse(folder, framework)
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


def parse(folder: str, framework: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=f"python examples/{folder}",
        description=f"A shop in {framework} on a master and a lagging slave: an example of replswitch.",
    )
    parser.add_argument("--port", type=int, default=8000, help="the port; 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--database",
        choices=("auto", "mariadb", "sqlite"),
        default="auto",
        help="the servers; auto is MariaDB if mariadbd is installed, and SQLite otherwise (default: auto)",
    )
    return parser.parse_args()


def start_servers(database: str) -> ReplicatedPair:
    """Start a master and a slave, and print what they are."""
    if database != "sqlite":
        mariadb = MariaDBPair()
        try:
            mariadb.start()
        except PairError as error:
            if database == "mariadb":
                raise
            print(f"No MariaDB: {error}")
        else:
            print("Started two MariaDB servers.")
            return mariadb
    print("Using two SQLite files; one is a copy of the other.")
    sqlite = SQLitePair()
    sqlite.start()
    return sqlite


def begin_lag(pair: ReplicatedPair) -> None:
    """Let the slave lag from now on, and print it."""
    pair.lag = LAG
    print(f"From now on the slave is {LAG} s behind the master.", flush=True)
