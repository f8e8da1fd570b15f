"""The checks that ask the servers, and the command, on the PostgreSQL pair."""

from __future__ import annotations

import io
from contextlib import closing
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.core.management import CommandError, call_command
from tests.altered import remote_apply

from django_replswitch import checks
from django_replswitch.management.commands import replswitch as command
from replswitch.testing import PostgreSQLPair

Databases = Any


@pytest.fixture
def database(postgresql_pair: PostgreSQLPair) -> dict[str, Any]:
    """The pair as an entry of DATABASES, as it should be."""
    master, (slave,) = postgresql_pair.master, postgresql_pair.slaves
    return {
        "ENGINE": "django_replswitch.backends.postgresql",
        "NAME": master["dbname"],
        "USER": master["user"],
        "PASSWORD": master["password"],
        "HOST": master["host"],
        "PORT": master["port"],
        "SLAVES": [{"PORT": slave["port"]}],
    }


def found() -> list[CheckMessage]:
    messages = checks.check_servers(None, databases=["checked"])
    assert all(message.hint for message in messages)
    return messages


def shown() -> tuple[list[str], str]:
    output = io.StringIO()
    try:
        call_command(command.Command(), stdout=output)
    except CommandError as error:
        return output.getvalue().split("\n"), str(error)
    return output.getvalue().split("\n"), ""


def test_a_correct_pair_has_no_message(use_databases: Databases, database: dict[str, Any]) -> None:
    use_databases(checked=database)
    assert found() == []
    (title, _, master, slave, _), complaint = shown()
    assert title == "checked (django_replswitch.backends.postgresql)"
    assert master.split()[-3:] == ["no", "-", "-"]
    # What the server writes to its log by itself arrives a moment before it is applied. The lag is then the age of the
    # last commit, a second or two here.
    read_only, replication, lag, unit = slave.split()[-4:]
    assert (read_only, replication, int(lag) < 10, unit) == ("yes", "running", True, "s")
    assert complaint == ""


def test_the_master_under_another_address_is_w008(use_databases: Databases, database: dict[str, Any]) -> None:
    use_databases(checked={**database, "SLAVES": [{"HOST": "localhost"}]})
    assert [message.id for message in found()] == ["replswitch.W008"]


def test_a_slave_that_is_not_in_recovery_is_w012(use_databases: Databases, database: dict[str, Any]) -> None:
    with PostgreSQLPair() as other:
        stranger = {"PORT": other.master["port"], "PASSWORD": other.master["password"]}
        use_databases(checked={**database, "SLAVES": [stranger]})
        assert [message.id for message in found()] == ["replswitch.W012"]
        assert "it follows no master" in shown()[1]


def test_an_sslmode_that_the_slave_does_not_have_is_w007(use_databases: Databases, database: dict[str, Any]) -> None:
    slave = {**database["SLAVES"][0], "OPTIONS": {"sslmode": "require"}}
    use_databases(checked={**database, "SLAVES": [slave]})
    (message,) = found()
    assert message.id == "replswitch.W007"
    assert "does not support SSL" in message.msg


def test_paused_replay_is_reported(
    use_databases: Databases, database: dict[str, Any], postgresql_pair: PostgreSQLPair
) -> None:
    use_databases(checked=database)
    with closing(postgresql_pair.admin("slave")) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
        try:
            assert "replay is paused" in shown()[1]
        finally:
            admin.execute("SELECT pg_wal_replay_resume()")


def test_commits_that_wait_for_slaves_are_i002(
    use_databases: Databases, database: dict[str, Any], postgresql_pair: PostgreSQLPair
) -> None:
    use_databases(checked=database)
    with remote_apply(postgresql_pair):
        assert [message.id for message in found()] == ["replswitch.I002"]
        lines, complaint = shown()
    assert "replswitch does not need" in lines[-2]
    assert complaint == ""
