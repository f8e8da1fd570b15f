"""The servers and drivers that the project runs on: one more of them is one more line in `SERVED`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final, NamedTuple


class ServedProject(NamedTuple):
    """Where a project runs.

    Attributes:
        pair: the name of the pair's fixtures.
        backend: the name of the backend, of Django and of replswitch.
        hidden: the driver that Django would prefer, and must not find; empty if there is none.
    """

    pair: str
    backend: str
    hidden: str = ""


NAMES: Final = {
    "database": "NAME",
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}
"""Django's keys, by the drivers'."""


SERVED: Final = {
    "mysqlclient": ServedProject("mariadb_pair", "mysql"),
    "pymysql": ServedProject("mariadb_pair", "mysql", hidden="MySQLdb"),
    "psycopg": ServedProject("postgresql_pair", "postgresql"),
    "psycopg2": ServedProject("postgresql_pair", "postgresql", hidden="psycopg"),
}
"""By the driver."""

DRIVER: Final = os.environ.get("PROJECT_DRIVER", "mysqlclient")
"""The driver of this process."""

PROJECT: Final = SERVED[DRIVER]
ENGINE: Final = f"django_replswitch.backends.{PROJECT.backend}"


def hide_the_other() -> None:
    """Let Django find the driver of this process only, as if the one that it prefers were not installed."""
    if not PROJECT.hidden:
        return
    known = sys.modules.get(PROJECT.hidden)
    sys.modules[PROJECT.hidden] = None  # type: ignore[assignment]  # what Python finds where a module is not installed
    if PROJECT.pair == "postgresql_pair":  # it needs psycopg; Django looks for it here and now
        import_module("django.db.backends.postgresql.base")
        del sys.modules[PROJECT.hidden]
        if known is not None:
            sys.modules[PROJECT.hidden] = known
