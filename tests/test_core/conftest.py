"""Connections to a pair, with a table of messages that both servers have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.drivers import load_driver
from replswitch.testing import ReplicatedPair

Make = Callable[..., Connection]

SERVED = {
    "mariadb": ("mariadb_pair", "pymysql"),
    "mysqlclient": ("mariadb_pair", "mysqlclient"),
    "sqlite": ("sqlite_pair", "sqlite3"),
}
"""Which pair, and by which driver."""


@pytest.fixture(params=SERVED)
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of the pair; the test runs with each."""
    name = SERVED[request.param][1]
    try:
        load_driver(name)
    except replswitch.ConfigurationError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))
    return name


@pytest.fixture
def replicated_pair(request: pytest.FixtureRequest, driver: str) -> ReplicatedPair:
    """One pair after the other, and MariaDB's once more for its second driver."""
    (name,) = {pair for pair, by in SERVED.values() if by == driver}
    pair: ReplicatedPair = request.getfixturevalue(name)
    return pair


@pytest.fixture
def make(replicated_pair: ReplicatedPair, driver: str) -> Iterator[Make]:
    """Make connections to the pair; they are closed behind the test."""
    plain = replicated_pair.connect("master")
    cursor = plain.cursor()
    cursor.execute("DROP TABLE IF EXISTS message")
    cursor.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body VARCHAR(100))")
    plain.close()
    replicated_pair.wait_caught_up()
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        options = {
            "master": replicated_pair.master,
            "slaves": replicated_pair.slaves,
            "driver": driver,
            "debug": True,
            **options,
        }
        made.append(replswitch.connect(**options))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def db(make: Make) -> Connection:
    """A connection to the pair, which keeps its queries."""
    return make()
