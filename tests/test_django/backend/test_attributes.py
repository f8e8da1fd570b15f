"""Every attribute of Django's connection object belongs either to a link or to the database.

A new Django that adds one fails here. Decide to which of the two it belongs: to `LINK_ATTRIBUTES` if it speaks
of one physical connection, or else to a list below.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLiteWrapper
from django.utils.functional import cached_property
from tests.test_django.backend.asking import ask
from tests.test_django.project.dialect import Pair

from django_replswitch.backends.link import LINK_ATTRIBUTES

THE_DATABASE_S = {
    # Its settings, and what is derived from them
    "settings_dict",
    "alias",
    "client",
    "creation",
    "features",
    "introspection",
    "ops",
    "validation",
    # The log of queries
    "queries_log",
    "force_debug_cursor",
    "execute_wrappers",
    # The transaction
    "autocommit",
    "in_atomic_block",
    "savepoint_state",
    "savepoint_ids",
    "atomic_blocks",
    "commit_on_exit",
    "needs_rollback",
    "rollback_exc",
    "closed_in_transaction",
    "run_on_commit",
    "run_commit_hooks_on_set_autocommit_on",
    # The thread that made it
    "_thread_sharing_lock",
    "_thread_sharing_count",
    "_thread_ident",
}

# Kept in the object once they are asked for. The servers of one database are taken to be of one kind.
CACHED = {
    "timezone",
    "timezone_name",
    "wrap_database_errors",
    "data_type_check_constraints",
    "data_types",
    "display_name",
    "mysql_is_mariadb",
    "mysql_server_data",
    "mysql_server_info",
    "mysql_version",
    "pg_version",
    "sql_mode",
}

# Set again with the parameters of each connection, and read while it is opened.
WHILE_OPENING = {"isolation_level"}

SETTINGS: dict[str, Any] = {"NAME": ":memory:", "OPTIONS": {}, "TIME_ZONE": None}


class Nothing:
    def __init__(self, connection: object) -> None:
        pass


@pytest.mark.parametrize(
    "stock",
    [BaseDatabaseWrapper, MySQLWrapper, PostgreSQLWrapper, SQLiteWrapper],
    ids=["base", "mysql", "postgresql", "sqlite3"],
)
def test_the_backend_handles_every_attribute_of_djangos_connection(
    stock: type[BaseDatabaseWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    if stock is BaseDatabaseWrapper:
        for name in ("client", "creation", "features", "introspection", "ops"):
            monkeypatch.setattr(stock, f"{name}_class", Nothing)
    found = set(vars(stock(dict(SETTINGS), "stock")))
    assert found - set(LINK_ATTRIBUTES) - THE_DATABASE_S == set()
    assert (set(LINK_ATTRIBUTES) | THE_DATABASE_S) - found == set()


@pytest.mark.parametrize(
    "stock", [MySQLWrapper, PostgreSQLWrapper, SQLiteWrapper], ids=["mysql", "postgresql", "sqlite3"]
)
def test_the_backend_handles_every_cached_property_of_djangos_connection(stock: type[BaseDatabaseWrapper]) -> None:
    found = {name for name, _ in inspect.getmembers(stock, lambda value: isinstance(value, cached_property))}
    assert found - CACHED == set()


def test_the_attributes_of_a_link_begin_with_the_values_of_djangos_own_connection() -> None:
    stock = MySQLWrapper(dict(SETTINGS), "stock")
    assert {name: getattr(stock, name) for name in LINK_ATTRIBUTES} == LINK_ATTRIBUTES


def test_the_backend_handles_every_attribute_that_djangos_connection_sets_while_it_is_used(
    django_pair: Pair, db: Any
) -> None:
    """An attribute that is first set by a method, not by the constructor."""
    stock = MySQLWrapper(dict(db.settings_dict), "stock")
    stock.force_debug_cursor = True
    ask(stock, "SELECT 1")
    stock.set_autocommit(False)
    stock.savepoint_rollback(stock.savepoint())  # type: ignore[arg-type]
    stock.rollback()
    stock.close_if_unusable_or_obsolete()
    stock.close()
    assert set(vars(stock)) - set(LINK_ATTRIBUTES) - THE_DATABASE_S - CACHED - WHILE_OPENING == set()
