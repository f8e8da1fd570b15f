"""The asyncio drivers that the tests of `AsyncSession` use, and their pairs of servers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Final

import pytest
from tests.test_sqlalchemy.conftest import address as address_of

PAIRS: Final = {
    "aiomysql": "mariadb_pair",
    "aiosqlite": "sqlite_pair",
    "asyncmy": "mariadb_pair",
    "asyncpg": "postgresql_pair",
    "psycopg": "postgresql_pair",
}
"""The fixture of the pair, by SQLAlchemy's name for the driver."""

OF_SERVERS: Final = [name for name in PAIRS if name != "aiosqlite"]
OF_POSTGRESQL: Final = [name for name, pair in PAIRS.items() if pair == "postgresql_pair"]


def installed(name: str) -> str:
    """Return the name of a driver. If it is not installed, skip the test, and fail where CI is set."""
    if find_spec(name) is None:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {name} is not installed")
        pytest.skip(f"{name} is not installed")
    return name


def address(settings: dict[str, Any], driver: str) -> str:
    """Return the settings of a server of a pair as SQLAlchemy's URL."""
    if driver == "aiosqlite":
        return f"sqlite+aiosqlite:///{settings['database']}"
    return address_of(settings, driver)
