"""The throw-away servers of the examples, and the option that chooses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.testing import MariaDBPair, PairError, PostgreSQLPair, SQLitePair

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from replswitch.testing import ReplicatedPair

REAL = {"mariadb": ("MariaDB", MariaDBPair), "postgresql": ("PostgreSQL", PostgreSQLPair)}
"""The servers that may be installed, with their names. The first one that is there is used."""


def add_option(parser: argparse.ArgumentParser, real: Sequence[str] = tuple(REAL)) -> None:
    """Add the option ``--database``.

    Args:
        parser: the parser.
        real: which servers of `REAL` the example works with.
    """
    names = " or ".join(REAL[name][0] for name in real)
    parser.add_argument(
        "--database",
        choices=("auto", *real, "sqlite"),
        default="auto",
        help=f"the servers; auto is {names} if it is installed, and SQLite otherwise (default: auto)",
    )
    parser.set_defaults(real=real)


def start(database: str, real: Sequence[str]) -> ReplicatedPair:
    """Start a master and a slave, and print what they are.

    Args:
        database: the value of the option.
        real: see `add_option`.

    Raises:
        PairError: the servers cannot be started.
    """
    for kind in () if database == "sqlite" else real if database == "auto" else (database,):
        name, make = REAL[kind]
        servers: ReplicatedPair = make()
        try:
            servers.start()
        except PairError as error:
            if database != "auto":
                raise
            print(f"No {name}: {error}", flush=True)
        else:
            print(f"Started two {name} servers.", flush=True)
            return servers
    sqlite = SQLitePair()
    sqlite.start()
    print("Started with two SQLite files; one is a copy of the other.", flush=True)
    return sqlite
