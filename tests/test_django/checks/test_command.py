"""``manage.py replswitch``, on the MariaDB pair in every state it can be in."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from tests.eventually import eventually

from django_replswitch import report
from django_replswitch.management.commands.replswitch import Command
from replswitch.report import TIMEOUT
from replswitch.testing import MariaDBPair, SQLitePair

ALIAS = "checked"


def run(*arguments: str) -> tuple[str, str]:
    """The output of the command, and its error."""
    output = StringIO()
    complaint = ""
    try:
        call_command(Command(), *arguments, stdout=output)
    except CommandError as error:
        complaint = str(error)
    return output.getvalue(), complaint


def servers() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(run("--format", "json")[0])[ALIAS]
    return told


def slave() -> dict[str, Any]:
    return servers()[1]


@pytest.fixture
def checked(use_databases: Any, database: dict[str, Any]) -> dict[str, Any]:
    use_databases(checked=database)
    return database


@pytest.fixture
def conflict(mariadb_pair: MariaDBPair) -> Iterator[None]:
    """A row that only the slave has, and that replication is going to collide with."""

    def execute(name: str, sql: str) -> None:
        with closing(mariadb_pair.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute("SET sql_log_bin = %s", (int(name == "master"),))
            cursor.execute(sql)

    execute("master", "CREATE TABLE shop.conflict (id INT PRIMARY KEY)")
    mariadb_pair.wait_caught_up()
    execute("slave", "INSERT INTO shop.conflict VALUES (1)")
    execute("master", "INSERT INTO shop.conflict VALUES (1)")
    yield
    execute("slave", "DELETE FROM shop.conflict")
    mariadb_pair.reset()
    execute("master", "DROP TABLE shop.conflict")


class TestServers:
    @pytest.mark.parametrize(
        "form", ["mysql://localhost?unix_socket={}", {"HOST": "{}"}, {"OPTIONS": {"unix_socket": "{}"}}]
    )
    def test_servers_behind_sockets_are_named_by_them(
        self, form: Any, use_databases: Any, database: dict[str, Any], mariadb_pair: MariaDBPair
    ) -> None:
        sockets = []
        for name in ("master", "slave"):
            with closing(mariadb_pair.admin(name)) as admin, admin.cursor() as cursor:
                cursor.execute("SELECT @@socket")
                sockets.append(cursor.fetchone()[0])
        given = json.loads(json.dumps(form).replace("{}", sockets[1], 1))
        of_master = {"HOST": "localhost", "PORT": "", "OPTIONS": {"unix_socket": sockets[0]}}
        use_databases(checked={**database, **of_master, "SLAVES": [given]})
        found = [(server["server"], server["replication"], server["problem"]) for server in servers()]
        assert found == [(sockets[0], None, None), (sockets[1], "running", None)]

    def test_the_table_lists_master_and_slave(self, checked: dict[str, Any]) -> None:
        output, complaint = run()
        assert complaint == ""
        title, headings, master, slave, _ = output.split("\n")
        assert title == "checked (django_replswitch.backends.mysql)"
        assert headings.split() == ["state", "server", "reachable", "version", "read_only", "replication", "behind"]
        address = f"127.0.0.1:{checked['PORT']}"
        assert master.split()[:3] == ["master", address, "yes"]
        assert master.split()[4:] == ["no", "-", "-"]
        address = f"127.0.0.1:{checked['SLAVES'][0]['PORT']}"
        assert slave.split()[:3] == ["slave", address, "yes"]
        assert slave.split()[4:] == ["yes", "running", "0", "s"]

    @pytest.mark.usefixtures("checked")
    def test_the_lag_is_reported_in_seconds(self, mariadb_pair: MariaDBPair) -> None:
        mariadb_pair.lag = 30
        with closing(mariadb_pair.connect()) as plain, plain.cursor() as cursor:
            cursor.execute("CREATE OR REPLACE TABLE lagging (id INT)")
        eventually(lambda: (slave()["behind"] or 0) >= 2, every=0.1)
        assert slave()["replication"] == "running"
        assert slave()["problem"] is None

    @pytest.mark.usefixtures("checked")
    def test_stopped_replication_is_reported(self, mariadb_pair: MariaDBPair) -> None:
        mariadb_pair.stop_slave()
        output, complaint = run()
        assert output.split()[-2:] == ["stopped", "-"]
        assert complaint.endswith(": replication is stopped")

    @pytest.mark.usefixtures("checked", "conflict")
    def test_broken_replication_is_reported_with_its_error(self) -> None:
        eventually(lambda: slave()["replication"] == "broken", every=0.1)
        assert "replication ended with an error: " in slave()["problem"]
        assert "Duplicate entry '1'" in slave()["problem"]

    @pytest.mark.usefixtures("checked")
    def test_a_dead_slave_is_reported(self, mariadb_pair: MariaDBPair) -> None:
        mariadb_pair.kill("slave")
        output, complaint = run()
        assert output.split("\n")[3].split()[2:] == ["no", "-", "-", "-", "-"]
        assert complaint.startswith("checked: the slave 127.0.0.1:")
        assert "no connection: Can't connect" in complaint

    @pytest.mark.usefixtures("checked")
    def test_a_dead_master_is_reported(self, mariadb_pair: MariaDBPair) -> None:
        mariadb_pair.kill("master")
        eventually(lambda: "it cannot connect to its master: " in (slave()["problem"] or ""), every=0.1)
        _, complaint = run()
        assert "the master 127.0.0.1:" in complaint
        assert "it cannot connect to its master: " in complaint

    def test_a_slave_without_a_master_is_reported(self, use_databases: Any, database: dict[str, Any]) -> None:
        (slave,) = database["SLAVES"]
        use_databases(checked={**database, "PORT": slave["PORT"], "SLAVES": [{"PORT": database["PORT"]}]})
        output, complaint = run()
        assert "none" in output.split("\n")[3].split()
        assert "it is read_only, so it refuses writes" in complaint
        assert "it follows no master" in complaint

    def test_without_slaves_the_master_is_listed_as_slave(self, use_databases: Any, database: dict[str, Any]) -> None:
        use_databases(checked={**database, "SLAVES": []})
        output, complaint = run()
        assert complaint == ""
        assert output.endswith(": it is the master itself\n")

    def test_servers_that_do_not_answer_are_reported(self, use_databases: Any, database: dict[str, Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            slave = {"PORT": silent.getsockname()[1]}
            use_databases(checked={**database, "SLAVES": [slave, slave, slave]})
            output, complaint = run("--timeout", "1")
        assert output.count(" no ") == 4  # the master is not read_only
        assert complaint.count("no connection") == 3

    def test_connect_timeout_is_the_time_limit_of_its_server(
        self, use_databases: Any, database: dict[str, Any]
    ) -> None:
        slaves = [*database["SLAVES"], {"OPTIONS": {"connect_timeout": 2}}]
        use_databases(checked={**database, "SLAVES": slaves, "OPTIONS": {"connect_timeout": 3}})
        assert [each.timeout for each in report.asked_servers(ALIAS)] == [3, 3, 2]
        use_databases(checked=database)
        assert {each.timeout for each in report.asked_servers(ALIAS)} == {TIMEOUT}

    def test_a_user_who_may_not_query_the_replication_status_is_noted(
        self, use_databases: Any, database: dict[str, Any], make_user: Callable[[str], dict[str, str]]
    ) -> None:
        use_databases(checked={**database, **make_user("SELECT")})
        output, complaint = run()
        assert complaint == ""
        assert "On the master: GRANT SLAVE MONITOR ON *.* TO 'checked'@'%'\n" in output
        assert slave()["replication"] == "unknown"

    def test_a_wrong_password_is_reported_and_not_shown(self, use_databases: Any, database: dict[str, Any]) -> None:
        use_databases(checked={**database, "PASSWORD": "wr0ng"})
        output, complaint = run()
        assert "Access denied" in complaint
        assert "wr0ng" not in output + complaint

    def test_sqlite_files_are_reported(self, use_databases: Any, sqlite_pair: SQLitePair, tmp_path: Path) -> None:
        names = [sqlite_pair.master["database"], sqlite_pair.slaves[0]["database"], str(tmp_path / "nowhere.db")]
        database = {
            "ENGINE": "django_replswitch.backends.sqlite3",
            "NAME": names[0],
            "SLAVES": [{"NAME": name} for name in names[1:]],
        }
        use_databases(checked=database)
        output, complaint = run()
        assert [line.split()[2] for line in output.splitlines()[2:]] == ["yes", "yes", "no"]
        assert complaint == "checked: the slave nowhere.db: no connection: unable to open database file"
        assert not Path(names[2]).exists()


class TestArguments:
    def test_the_option_database_selects_one_alias(self, use_databases: Any, database: dict[str, Any]) -> None:
        use_databases(checked=database, also_checked=dict(database))
        assert list(json.loads(run("--format", "json")[0])) == ["checked", "also_checked"]
        assert list(json.loads(run("--format", "json", "--database", "also_checked")[0])) == ["also_checked"]

    @pytest.mark.usefixtures("checked")
    def test_an_unknown_alias_is_refused(self) -> None:
        assert run("--database", "chequed")[1] == 'DATABASES has no alias "chequed". Its aliases are: default, checked.'

    @pytest.mark.usefixtures("checked")
    def test_a_database_without_the_backend_is_refused(self) -> None:
        _, complaint = run("--database", "default")
        assert complaint == 'The database "default" does not use replswitch. Its ENGINE is "django.db.backends.dummy".'

    def test_a_project_without_the_backend_is_an_error_that_says_what_to_do(self, use_databases: Any) -> None:
        use_databases()
        assert run()[1].startswith('No database uses replswitch. Set "ENGINE": "django_replswitch.backends.mysql"')

    @pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "soon"])
    def test_a_wrong_timeout_is_refused(self, seconds: str) -> None:
        with pytest.raises(CommandError, match="is not a valid number of seconds"):
            call_command(Command(), f"--timeout={seconds}")


class TestInAProject:
    """In a process of its own, by the name that it has for manage.py."""

    MANAGE = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
settings.INSTALLED_APPS.append("django_replswitch")
try:
    execute_from_command_line(["manage.py", *{arguments!r}])
except SystemExit as end:
    print("exit code", end.code, file=sys.stderr)
    print("exit code", end.code)
"""

    def test_manage_py_replswitch_exits_with_0(self, run_python: Callable[..., str]) -> None:
        output = run_python(self.MANAGE.format(arguments=["replswitch"]))
        assert output.startswith("default (django_replswitch.backends.mysql)")
        assert "exit code" not in output

    def test_manage_py_replswitch_exits_with_1_on_a_problem(
        self, run_python: Callable[..., str], mariadb_pair: MariaDBPair
    ) -> None:
        mariadb_pair.stop_slave()
        assert run_python(self.MANAGE.format(arguments=["replswitch"])).endswith("exit code 1\n")

    def test_help_lists_the_options(self, run_python: Callable[..., str]) -> None:
        output = run_python(self.MANAGE.format(arguments=["replswitch", "--help"]))
        assert all(option in output for option in ("--database ALIAS", "--format {table,json}", "--timeout SECONDS"))

    def test_manage_py_check_finds_no_issue(self, run_python: Callable[..., str]) -> None:
        output = run_python(self.MANAGE.format(arguments=["check", "--tag", "replswitch", "--database", "default"]))
        assert output.startswith("System check identified no issues")


def test_the_checks_run_without_the_application_in_installed_apps(run_python: Callable[..., str]) -> None:
    script = """
import django
from django.conf import settings
from django.core.checks import run_checks
settings.MIDDLEWARE.clear()
django.setup()
print([message.id for message in run_checks() if message.id.startswith("replswitch")])
"""
    assert run_python(script) == "['replswitch.W002']\n"
