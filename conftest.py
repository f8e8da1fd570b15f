"""The examples in README.md and docs/ are run as tests, on a real MariaDB pair."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.testing import MariaDBPair


@pytest.fixture
def servers_by_name(mariadb_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch) -> MariaDBPair:
    """The pair under the names that the examples use: master.db and slave.db, with the account board."""
    ports = {"master.db": mariadb_pair.master["port"], "slave.db": mariadb_pair.slaves[0]["port"]}
    connect = socket.create_connection

    def resolve(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        host, port = address
        return connect(("127.0.0.1", ports[host]) if host in ports else (host, port), *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", resolve)
    with mariadb_pair.admin() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS board@'%' IDENTIFIED BY 's3cret'")
        cursor.execute("GRANT ALL ON shop.* TO board@'%'")
    mariadb_pair.wait_caught_up()
    return mariadb_pair


@pytest.fixture
def message_table(servers_by_name: MariaDBPair) -> Callable[[], None]:
    """Make an empty table of messages on both servers. An example calls it; every example asks for fixtures anew."""

    def make() -> None:
        with servers_by_name.admin() as admin, admin.cursor() as cursor:
            cursor.execute(
                "CREATE OR REPLACE TABLE shop.message (id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(200))"
            )
        servers_by_name.wait_caught_up()

    return make


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["servers_by_name", "message_table"],
    setup=lambda namespace: namespace.update(__name__="docs"),  # as in the module of a reader; Dramatiq needs it
).pytest()
