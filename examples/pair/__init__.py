"""The throw-away servers of the examples, and the option that chooses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.testing import MariaDBPair, PairError, SQLitePair

if TYPE_CHECKING:
    import argparse

    from replswitch.testing import ReplicatedPair


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--database``."""
    parser.add_argument(
        "--database",
        choices=("auto", "mariadb", "sqlite"),
        default="auto",
        help="the servers; auto is MariaDB if mariadbd is installed, and SQLite otherwise (default: auto)",
    )


def start(database: str) -> ReplicatedPair:
    """Start a master and a slave, and print what they are.

    Args:
        database: the value of the option.

    Raises:
        PairError: the servers cannot be started.
    """
    if database != "sqlite":
        mariadb = MariaDBPair()
        try:
            mariadb.start()
        except PairError as error:
            if database == "mariadb":
                raise
            print(f"No MariaDB: {error}", flush=True)
        else:
            print("Started two MariaDB servers.", flush=True)
            return mariadb
    sqlite = SQLitePair()
    sqlite.start()
    print("Started with two SQLite files; one is a copy of the other.", flush=True)
    return sqlite
