"""DATABASES of one test's own, for the checks and the command; the project's are not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from django.db.utils import ConnectionHandler

from django_replswitch import checks, report
from django_replswitch.management.commands import replswitch as command
from replswitch.testing import MariaDBPair

#: The alias of the pair.
ALIAS = "checked"

Databases = Callable[..., None]
Database = dict[str, Any]


@pytest.fixture
def use_databases(monkeypatch: pytest.MonkeyPatch) -> Databases:
    """Let the checks and the command see these DATABASES."""

    def use(**databases: Database) -> None:
        handler = ConnectionHandler({"default": {}, **databases})
        for module in (checks, report, command):
            monkeypatch.setattr(module, "connections", handler)

    return use


@pytest.fixture
def database(mariadb_pair: MariaDBPair) -> Database:
    """The pair as an entry of DATABASES, as it should be."""
    master, (slave,) = mariadb_pair.master, mariadb_pair.slaves
    return {
        "ENGINE": "django_replswitch.backends.mysql",
        "NAME": master["database"],
        "USER": master["user"],
        "PASSWORD": master["password"],
        "HOST": master["host"],
        "PORT": master["port"],
        "SLAVES": [{"PORT": slave["port"]}],
    }


@pytest.fixture
def make_user(mariadb_pair: MariaDBPair) -> Iterator[Callable[[str], dict[str, str]]]:
    """Make a user with privileges ``ON *.*``; gone after the test."""

    def run(*statements: str) -> None:
        with closing(mariadb_pair.admin()) as admin, admin.cursor() as cursor:
            for sql in statements:
                cursor.execute(sql)
        mariadb_pair.wait_caught_up()

    def make(privileges: str) -> dict[str, str]:
        run("CREATE USER checked@'%' IDENTIFIED BY 's3cret'", f"GRANT {privileges} ON *.* TO checked@'%'")
        return {"USER": "checked", "PASSWORD": "s3cret"}

    yield make
    mariadb_pair.reset()
    run("DROP USER IF EXISTS checked@'%'")
