"""The checks that ask the servers, on the MariaDB pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from django.core.checks import CheckMessage

from django_replswitch import checks
from replswitch.report import ServerStatus
from replswitch.testing import MariaDBPair

ALIAS = "checked"


def found() -> list[CheckMessage]:
    messages = checks.check_servers(None, databases=[ALIAS])
    assert all(message.hint for message in messages)
    return messages


@pytest.fixture
def writable_slave(mariadb_pair: MariaDBPair) -> Iterator[None]:
    with closing(mariadb_pair.admin("slave")) as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = OFF")
        yield
        cursor.execute("SET GLOBAL read_only = ON")


def test_a_correct_pair_has_no_message(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked=database)
    assert found() == []


def test_without_database_the_check_queries_no_server(
    use_databases: Any, database: dict[str, Any], mariadb_pair: MariaDBPair
) -> None:
    use_databases(checked=database)
    with mariadb_pair.statements("slave") as received:
        assert checks.check_servers(None) == []
        assert checks.check_servers(None, databases=["default"]) == []
    assert received == []


def test_a_slave_that_is_down_is_w007(use_databases: Any, database: dict[str, Any], mariadb_pair: MariaDBPair) -> None:
    use_databases(checked=database)
    mariadb_pair.kill("slave")
    (message,) = found()
    assert message.id == "replswitch.W007"
    assert "no connection: Can't connect" in message.msg


def test_a_missing_test_database_on_the_slave_is_no_problem(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "NAME": "test_nowhere"})
    assert found() == []


def test_the_master_under_another_address_is_w008(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "SLAVES": [{"HOST": "127.1"}]})
    assert [message.id for message in found()] == ["replswitch.W008"]


def test_a_slave_with_the_address_of_the_master_is_reported_once(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "SLAVES": [{}]})
    assert found() == []
    assert [message.id for message in checks.check_slaves(None)] == ["replswitch.W001"]


@pytest.mark.usefixtures("writable_slave")
def test_a_slave_that_is_not_read_only_is_reported(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked=database)
    assert [message.id for message in found()] == ["replswitch.W009"]


@pytest.mark.parametrize(
    ("privileges", "named"), [("ALL PRIVILEGES", "ALL PRIVILEGES"), ("SELECT, READ_ONLY ADMIN", "READ_ONLY ADMIN")]
)
def test_a_user_who_can_write_despite_read_only_is_reported(
    use_databases: Any,
    database: dict[str, Any],
    make_user: Callable[[str], dict[str, str]],
    privileges: str,
    named: str,
) -> None:
    (slave,) = database["SLAVES"]
    use_databases(checked={**database, "SLAVES": [{**slave, **make_user(privileges)}]})
    (message,) = found()
    assert message.id == "replswitch.W010"
    assert f"its user has {named} and" in message.msg


@pytest.mark.parametrize(
    ("version", "variables", "grant", "bypasses"),
    [
        ("10.6.18-MariaDB", {}, "SELECT, SUPER", True),
        ("10.11.6-MariaDB", {}, "SELECT, SUPER", False),  # from here on SUPER is not READ_ONLY ADMIN
        ("10.11.6-MariaDB", {}, "CONNECTION ADMIN", False),
        ("12.1.2-MariaDB", {"read_only": "NO_LOCK_NO_ADMIN"}, "ALL PRIVILEGES", False),
        ("8.4.3", {}, "SELECT, SUPER", True),
        ("8.4.3", {}, "SYSTEM_USER,CONNECTION_ADMIN", True),  # dynamic privileges are written without a blank
        ("8.4.3", {"super_read_only": "ON"}, "SELECT, SUPER", False),
        ("8.4.3", {}, "SELECT, REPLICATION CLIENT", False),
    ],
)
def test_grants_that_bypass_read_only_are_recognised(
    version: str, variables: dict[str, str], grant: str, bypasses: bool
) -> None:
    slave = ServerStatus(
        "slave",
        "slave.db",
        reachable=True,
        version=version,
        read_only=True,
        variables={"read_only": "ON", **variables},
        grants=[f"GRANT {grant} ON *.* TO `shop`@`%`", "GRANT ALL PRIVILEGES ON `shop`.* TO `shop`@`%`"],
    )
    messages = checks._check_slave("The slave", slave)
    assert [message.id for message in messages] == ["replswitch.W010"] * bypasses


def test_a_galera_node_that_is_not_read_only_has_no_message() -> None:
    node = ServerStatus(
        "slave", "node2.db", reachable=True, version="10.11.6-MariaDB", read_only=False, replication="cluster"
    )
    assert checks._check_slave("The slave", node) == []
