"""The checks that ask the servers, on the MariaDB pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from django.core.checks import CheckMessage

from django_replswitch import checks
from replswitch.report import Standing
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


def test_a_right_pair(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked=database)
    assert found() == []


def test_nobody_is_asked_without_being_told_to(
    use_databases: Any, database: dict[str, Any], mariadb_pair: MariaDBPair
) -> None:
    use_databases(checked=database)
    with mariadb_pair.statements("slave") as received:
        assert checks.check_servers(None) == []
        assert checks.check_servers(None, databases=["default"]) == []
    assert received == []


def test_a_slave_that_is_down(use_databases: Any, database: dict[str, Any], mariadb_pair: MariaDBPair) -> None:
    use_databases(checked=database)
    mariadb_pair.kill("slave")
    (message,) = found()
    assert message.id == "replswitch.W007"
    assert "no connection: Can't connect" in message.msg


def test_a_test_database_that_the_slave_lacks(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "NAME": "test_nowhere"})
    assert found() == []


def test_the_master_under_another_address(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "SLAVES": [{"HOST": "127.1"}]})
    assert [message.id for message in found()] == ["replswitch.W008"]


def test_the_address_of_the_master_is_told_of_once(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "SLAVES": [{}]})
    assert found() == []
    assert [message.id for message in checks.check_slaves(None)] == ["replswitch.W001"]


@pytest.mark.usefixtures("writable_slave")
def test_a_slave_that_is_not_read_only(use_databases: Any, database: dict[str, Any]) -> None:
    use_databases(checked=database)
    assert [message.id for message in found()] == ["replswitch.W009"]


@pytest.mark.parametrize(
    ("privileges", "named"), [("ALL PRIVILEGES", "ALL PRIVILEGES"), ("SELECT, READ_ONLY ADMIN", "READ_ONLY ADMIN")]
)
def test_a_user_whom_read_only_does_not_hold_back(
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
    assert f"who has {named}." in message.msg


@pytest.mark.parametrize(
    ("version", "variables", "grant", "passes"),
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
def test_who_may_write_where_it_is_read_only(version: str, variables: dict[str, str], grant: str, passes: bool) -> None:
    slave = Standing(
        "slave",
        "slave.db",
        reachable=True,
        version=version,
        read_only=True,
        variables={"read_only": "ON", **variables},
        grants=[f"GRANT {grant} ON *.* TO `shop`@`%`", "GRANT ALL PRIVILEGES ON `shop`.* TO `shop`@`%`"],
    )
    messages = checks._check_slave("The slave", slave)
    assert [message.id for message in messages] == ["replswitch.W010"] * passes


def test_galera() -> None:
    node = Standing(
        "slave", "node2.db", reachable=True, version="10.11.6-MariaDB", read_only=False, replication="cluster"
    )
    assert checks._check_slave("The slave", node) == []
