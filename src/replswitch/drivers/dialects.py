"""Choose the driver for the connections of an SQLAlchemy dialect."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers import load_driver
from replswitch.drivers.unknown import UnknownDriver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers import Driver

# The drivers of replswitch, by their names in SQLAlchemy.
_OURS: Final = {
    "pymysql": "pymysql",
    "mysqldb": "mysqlclient",
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "pysqlite": "sqlite3",
}

# The drivers of replswitch for asyncio, which have positions, by their names in SQLAlchemy.
_ASYNC: Final = {
    "aiomysql": ("async_aiomysql", "AiomysqlDriver"),
    "aiosqlite": ("async_sqlite", "AsyncSQLiteDriver"),
    "asyncmy": ("async_asyncmy", "AsyncmyDriver"),
    "asyncpg": ("async_asyncpg", "AsyncpgDriver"),
    "psycopg": ("async_psycopg", "AsyncPsycopgDriver"),
}


def driver_of(dialect: Any, settings: Mapping[str, Any]) -> Driver:
    """Return the driver for the connections of an SQLAlchemy dialect.

    Args:
        dialect: the dialect.
        settings: the settings of its connections.

    Raises:
        ConfigurationError: no statement is known that makes sessions of this database read-only.
    """
    file = str(settings.get("database") or "")
    in_memory = dialect.name == "sqlite" and (not file or ":memory:" in file or "mode=memory" in file)
    name = None if dialect.is_async else _OURS.get(dialect.driver)
    if name is not None and not in_memory:
        return load_driver(name, binding=True)
    kind = UnknownDriver
    if dialect.is_async and dialect.driver in _ASYNC and not in_memory:
        module, attribute = _ASYNC[dialect.driver]
        kind = getattr(import_module(f"replswitch.drivers.{module}"), attribute)
    return kind(dialect, in_memory=in_memory)
