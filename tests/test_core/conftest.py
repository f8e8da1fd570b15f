"""Connections to a pair, with a table of messages that both servers have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.testing import ReplicatedPair

if TYPE_CHECKING:
    from tests.conftest import Served

Make = Callable[..., Connection]


@pytest.fixture
def driver(served: Served) -> Any:
    """The driver that the test uses the pair with."""
    return served.driver


@pytest.fixture
def replicated_pair(served: Served) -> ReplicatedPair:
    """The pair; the test runs with each, and with each of its drivers."""
    return served.pair


@pytest.fixture
def make(replicated_pair: ReplicatedPair, driver: Any) -> Iterator[Make]:
    """Make connections to the pair; they are closed after the test."""
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
