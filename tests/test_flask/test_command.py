"""``flask replswitch``, on pairs in every state they can be in."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

import replswitch
from flask_replswitch import ReplSwitch
from replswitch.testing import MariaDBPair, MySQLPair, PostgreSQLPair

if TYPE_CHECKING:
    from click.testing import Result
    from tests.test_flask.conftest import NewApp

    from replswitch.testing import ReplicatedPair, SQLitePair

Run = Callable[..., "Result"]


@pytest.fixture
def run_on(new_app: NewApp) -> Iterator[Run]:
    """Runs the command for an application with a database, which is named by its servers."""
    made = []

    def run(*arguments: str, master: Any, slaves: Any, **options: Any) -> Result:
        db = replswitch.connect(master=master, slaves=slaves, **options)
        made.append(db)
        app = new_app()
        ReplSwitch(app, databases=[db])
        result: Result = app.test_cli_runner().invoke(args=["replswitch", *arguments])
        assert result.exit_code in (0, 1), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    yield run
    for db in made:
        db.close()


@pytest.fixture
def run(run_on: Run, mariadb_pair: MariaDBPair) -> Run:
    """Runs the command for an application on the MariaDB pair."""
    return lambda *arguments: run_on(*arguments, master=mariadb_pair.master, slaves=mariadb_pair.slaves)


def slave_of(result: Result) -> dict[str, Any]:
    """The report about the only slave."""
    told = json.JSONDecoder().raw_decode(result.output)[0]
    slave: dict[str, Any] = told["shop"][1]
    return slave


def wait_for(run: Run, name: str, wanted: Callable[[Any], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while not wanted((told := slave_of(run("--format", "json")))[name]):
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told


def test_the_table_lists_master_and_slave(run: Run, mariadb_pair: MariaDBPair) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    title, headings, master, slave, _ = result.output.split("\n")
    assert title == "shop"
    assert headings.split() == ["state", "server", "reachable", "version", "read_only", "replication", "behind"]
    assert master.split()[:3] == ["master", f"127.0.0.1:{mariadb_pair.master['port']}", "yes"]
    assert master.split()[4:] == ["no", "-", "-"]
    assert slave.split()[:3] == ["slave", f"127.0.0.1:{mariadb_pair.slaves[0]['port']}", "yes"]
    assert slave.split()[4:] == ["yes", "running", "0", "s"]


def test_mysql_servers_are_reported(run_on: Run, mysql_pair: MySQLPair) -> None:
    result = run_on("--format", "json", master=mysql_pair.master, slaves=mysql_pair.slaves)
    assert result.exit_code == 0, result.output
    assert slave_of(result)["replication"] == "running"
    mysql_pair.stop_slave()
    result = run_on(master=mysql_pair.master, slaves=mysql_pair.slaves)
    assert result.exit_code == 1
    assert "replication is stopped" in result.output


def test_postgresql_servers_are_reported(run_on: Run, postgresql_pair: PostgreSQLPair) -> None:
    servers = {"master": postgresql_pair.master, "slaves": postgresql_pair.slaves, "driver": "psycopg"}
    result = run_on("--format", "json", **servers)
    assert result.exit_code == 0, result.output
    assert (slave_of(result)["replication"], slave_of(result)["behind"]) == ("running", 0)
    postgresql_pair.stop_slave()
    result = run_on(**servers)
    assert result.exit_code == 1
    assert "it applies nothing, because replay is paused" in result.output


def test_sqlite_files_are_reported(run_on: Run, sqlite_pair: SQLitePair) -> None:
    result = run_on(master=sqlite_pair.master, slaves=sqlite_pair.slaves, driver="sqlite3")
    assert result.exit_code == 0, result.output
    assert [line.split()[2] for line in result.output.strip().split("\n")[2:]] == ["yes", "yes"]
    missing = {"database": f"{sqlite_pair.master['database']}.missing"}
    result = run_on(master=sqlite_pair.master, slaves=[missing], driver="sqlite3")
    assert result.exit_code == 1
    assert "the slave" in result.output
    assert "no connection: unable to open" in result.output


def test_without_slaves_the_master_is_listed_as_slave(run_on: Run, replicated_pair: ReplicatedPair) -> None:
    result = run_on(master=replicated_pair.master, slaves=[], driver=replicated_pair.driver)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(": it is the master itself\n")


def test_the_lag_is_reported_in_seconds(run: Run, mariadb_pair: MariaDBPair) -> None:
    mariadb_pair.lag = 30
    with closing(mariadb_pair.connect()) as plain, plain.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE lagging (id INT)")
    told = wait_for(run, "behind", lambda seconds: (seconds or 0) >= 2)
    assert (told["replication"], told["problem"]) == ("running", None)


def test_stopped_replication_is_reported(run: Run, mariadb_pair: MariaDBPair) -> None:
    mariadb_pair.stop_slave()
    result = run()
    assert result.exit_code == 1
    assert result.output.endswith(": replication is stopped\n")


def test_a_dead_slave_is_reported(run: Run, mariadb_pair: MariaDBPair) -> None:
    mariadb_pair.kill("slave")
    result = run()
    assert result.exit_code == 1
    assert result.output.split("\n")[3].split()[2:] == ["no", "-", "-", "-", "-"]
    assert "Error: shop: the slave 127.0.0.1:" in result.output
    assert "no connection: Can't connect" in result.output


def test_a_dead_master_is_reported(run: Run, mariadb_pair: MariaDBPair) -> None:
    mariadb_pair.kill("master")
    # The error follows the state "connecting".
    told = wait_for(run, "problem", lambda problem: "it cannot connect to its master: " in (problem or ""))
    assert told["replication"] == "connecting"
    assert "the master 127.0.0.1:" in run().output


def test_a_slave_without_a_master_is_reported(run_on: Run, mariadb_pair: MariaDBPair) -> None:
    result = run_on(master=mariadb_pair.slaves[0], slaves=[mariadb_pair.master])
    assert result.exit_code == 1
    assert "it is read_only, so it refuses writes" in result.output
    assert "it follows no master" in result.output


def test_a_user_who_may_not_query_the_replication_status_is_noted(run_on: Run, mariadb_pair: MariaDBPair) -> None:
    with closing(mariadb_pair.admin()) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER modest@'%' IDENTIFIED BY 'modest'")
        cursor.execute("GRANT ALL ON shop.* TO modest@'%'")
    mariadb_pair.wait_caught_up()
    who = {"user": "modest", "password": "modest"}
    result = run_on(master=mariadb_pair.master | who, slaves=[each | who for each in mariadb_pair.slaves])
    assert result.exit_code == 0, result.output
    assert "GRANT SLAVE MONITOR ON *.* TO 'modest'@'%'" in result.output


def test_servers_that_do_not_answer_are_reported(run_on: Run, mariadb_pair: MariaDBPair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slave = {"host": "127.0.0.1", "port": silent.getsockname()[1]}
        result = run_on("--timeout", "1", master=mariadb_pair.master, slaves=[slave] * 3)
    assert result.exit_code == 1
    assert result.output.count("no connection: ") == 3


def test_several_databases_are_reported(new_app: NewApp, mariadb_pair: MariaDBPair, sqlite_pair: SQLitePair) -> None:
    with (
        replswitch.connect(mariadb_pair.master, mariadb_pair.slaves) as first,
        replswitch.connect(mariadb_pair.master, name="orders") as second,
        replswitch.connect(sqlite_pair.master, sqlite_pair.slaves, driver="sqlite3", name="shop") as third,
    ):
        app = new_app()
        ReplSwitch(app, databases=[first, second, third])
        result = app.test_cli_runner().invoke(args=["replswitch", "--format", "json"])
    told = json.loads(result.output)
    assert [[each["state"] for each in servers] for servers in told.values()] == [["master", "slave"]] * 3
    assert list(told) == ["shop", "orders", "shop (2)"]


def test_an_application_without_a_database_is_an_error(new_app: NewApp) -> None:
    app = new_app()
    ReplSwitch(app)
    result = app.test_cli_runner().invoke(args=["replswitch"])
    assert result.exit_code == 1
    assert "No database is known" in result.output


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "1.5", "99999"])
def test_a_wrong_timeout_is_refused(new_app: NewApp, seconds: str) -> None:
    app = new_app()
    ReplSwitch(app)
    result = app.test_cli_runner().invoke(args=["replswitch", "--timeout", seconds])
    assert result.exit_code == 2
    assert "Invalid value for '--timeout'" in result.output


def test_a_replswitch_command_of_the_application_is_kept(new_app: NewApp) -> None:
    app: Flask = new_app()

    @app.cli.command("replswitch")
    def mine() -> None:
        print("mine")

    ReplSwitch(app)
    assert app.test_cli_runner().invoke(args=["replswitch"]).output == "mine\n"
