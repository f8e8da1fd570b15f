"""Throw-away replicated pairs; see "Test with a real replicated pair" in the documentation."""

from __future__ import annotations

from replswitch.testing.errors import NotCaughtUpError, PairError, ServerNotFoundError, ServerStartError
from replswitch.testing.mariadb import MariaDBPair
from replswitch.testing.mysql import MySQLPair
from replswitch.testing.pair import ReplicatedPair
from replswitch.testing.postgresql import PostgreSQLPair
from replswitch.testing.proxy import Proxy
from replswitch.testing.reads import assert_reads_on
from replswitch.testing.sqlite import SQLitePair

__all__ = [
    "MariaDBPair",
    "MySQLPair",
    "NotCaughtUpError",
    "PairError",
    "PostgreSQLPair",
    "Proxy",
    "ReplicatedPair",
    "SQLitePair",
    "ServerNotFoundError",
    "ServerStartError",
    "assert_reads_on",
]
