"""Pairs of real servers beyond the contract, and errors at their start."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from replswitch.errors import ConfigurationError
from replswitch.testing import (
    MariaDBPair,
    MySQLPair,
    NotCaughtUpError,
    PairError,
    ServerNotFoundError,
    ServerStartError,
    launch,
    processes,
)
from replswitch.testing.mysql import find_mysqld
from replswitch.testing.plugin import start_or_skip
from replswitch.testing.replication import MARIADB, MYSQL, Dialect, unsettled
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module", params=[MariaDBPair, MySQLPair])
def started(request: pytest.FixtureRequest) -> Iterator[ServerPair]:
    pair: ServerPair = request.param()
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture
def pair(started: ServerPair) -> ServerPair:
    started.reset()
    execute(started, "master", "DROP TABLE IF EXISTS message, words")
    execute(started, "master", "CREATE TABLE message (number INTEGER PRIMARY KEY)")
    started.wait_caught_up()
    return started


def execute(pair: ServerPair, name: str, sql: str) -> list[Any]:
    with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def test_the_parameters_of_a_server_have_the_names_that_pymysql_uses(pair: ServerPair) -> None:
    assert set(pair.master) == set(pair.slaves[0]) == {"host", "port", "user", "password", "database"}
    assert pair.driver == "pymysql"


@pytest.mark.parametrize(
    ("connection", "lag", "expected"),
    [
        ("Connecting", None, "is not connected to its master"),
        ("Yes", 3, "reports a lag of 3 s"),
        ("Yes", None, "reports a lag of None s"),
        ("Yes", 0, ""),
    ],
)
@pytest.mark.parametrize("dialect", [MARIADB, MYSQL], ids=lambda dialect: dialect.product)
def test_a_slave_is_settled_once_it_is_connected_and_reports_no_lag(
    dialect: Dialect, connection: str, lag: int | None, expected: str
) -> None:
    assert unsettled(dialect, {f"{dialect.role}_IO_Running": connection, dialect.behind: lag}) == expected


@pytest.mark.parametrize("lag", [0.5, 2.5])
def test_a_lag_is_a_whole_number_of_seconds(pair: ServerPair, lag: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"lag={lag}: a lag of (MariaDB|MySQL) must be in whole seconds"):
        pair.lag = lag


def test_a_slave_refuses_writes_of_the_account_of_the_application(pair: ServerPair) -> None:
    with pytest.raises(pymysql.err.OperationalError) as raised:
        execute(pair, "slave", "INSERT INTO message VALUES (1)")
    assert raised.value.args[0] == 1290


def test_the_account_of_the_application_may_create_test_databases_and_query_the_replication_status(
    pair: ServerPair,
) -> None:
    execute(pair, "master", "CREATE DATABASE test_shop")
    execute(pair, "master", "DROP DATABASE test_shop")
    assert execute(pair, "slave", pair.dialect.status)
    assert execute(pair, "master", "SHOW BINARY LOGS")
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        execute(pair, "master", "CREATE DATABASE other")


def test_a_login_without_a_password_is_refused(pair: ServerPair) -> None:
    for user in ("root", "replication", "shop", "", "mariadb.sys", "mysql.sys"):
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(host="127.0.0.1", port=pair.master["port"], user=user)


def test_text_with_emoji_is_replicated(pair: ServerPair) -> None:
    execute(pair, "master", "CREATE TABLE words (word VARCHAR(20))")
    execute(pair, "master", "INSERT INTO words VALUES ('Größe 🐬')")
    pair.wait_caught_up()
    assert execute(pair, "slave", "SELECT word FROM words WHERE word = 'Größe 🐬'") == [("Größe 🐬",)]


def test_the_recorded_statements_are_only_those_that_the_application_has_sent(pair: ServerPair) -> None:
    with pair.statements("slave") as received:
        assert execute(pair, "slave", "SELECT 'ü%', 1 +\n 1") == [("ü%", 2)]
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        execute(pair, "master", "CREATE TABLE words (word VARCHAR(20))")
        pair.wait_caught_up()
        pair.status("slave", "Questions")
    assert [one for one in received if not one.startswith("SET ")] == ["SELECT 'ü%', 1 +\n 1"]
    execute(pair, "slave", "SELECT 2")
    with pair.statements("slave") as received:
        pass
    assert received == []


def test_the_recorded_statements_are_available_after_an_error_in_the_block(pair: ServerPair) -> None:
    with suppress(ZeroDivisionError), pair.statements("master") as received:
        execute(pair, "master", "SELECT 1")
        raise ZeroDivisionError
    assert "SELECT 1" in received


def test_the_statements_of_a_server_are_recorded_in_one_block_at_a_time(pair: ServerPair) -> None:
    with (
        pair.statements("slave"),
        pytest.raises(PairError, match="the slave are being recorded already"),
        pair.statements("slave"),
    ):
        pass


def test_recording_statements_changes_no_replication_position(pair: ServerPair) -> None:
    asked = (pair.dialect.position, pair.dialect.reached)
    before = [execute(pair, "slave", sql) for sql in asked]
    with pair.statements("slave"), pair.statements("master"):
        pass
    pair.wait_caught_up()
    assert [execute(pair, "slave", sql) for sql in asked] == before


def test_status_returns_a_counter_of_the_server(pair: ServerPair) -> None:
    before = pair.status("slave", "Com_select")
    execute(pair, "slave", "SELECT 1")
    assert pair.status("slave", "Com_select") == before + 1
    for variable in ("Com_selct", "Rpl_semi_sync_master_status", "%"):
        with pytest.raises(ConfigurationError, match=f"'{variable}' is not a counter .* of the slave"):
            pair.status("slave", variable)


def test_admin_can_kill_a_connection(pair: ServerPair) -> None:
    with (
        closing(pair.connect("slave")) as victim,
        victim.cursor() as cursor,
        closing(pair.admin("slave")) as admin,
    ):
        cursor.execute("SELECT CONNECTION_ID()")
        admin.cursor().execute("KILL %s", cursor.fetchone())
        with pytest.raises(pymysql.MySQLError):
            cursor.execute("SELECT 1")


def test_failed_replication_is_reported_without_waiting(pair: ServerPair) -> None:
    with closing(pair.admin("slave")) as admin, admin.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("INSERT INTO shop.message VALUES (1)")
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        with pytest.raises(NotCaughtUpError, match=r"slave has not caught up: .* Duplicate entry '1'") as raised:
            pair.wait_caught_up(timeout=60)
        assert raised.value.server == "slave"
        cursor.execute("DELETE FROM shop.message")
    pair.reset()
    assert execute(pair, "slave", "SELECT * FROM message") == [(1,)]


def test_wait_caught_up_with_timeout_zero_raises_at_once(pair: ServerPair) -> None:
    with closing(pair.admin("slave")) as admin, admin.cursor() as cursor:
        cursor.execute("LOCK TABLES shop.message READ")
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        with pytest.raises(NotCaughtUpError):
            pair.wait_caught_up(timeout=0)


def test_an_sql_error_of_the_pair_itself_is_a_pair_error(pair: ServerPair) -> None:
    with pytest.raises(PairError, match=r"the slave failed at 'NONSENSE': .*1064") as raised:
        pair._run("slave", "NONSENSE")
    assert isinstance(raised.value.__cause__, pymysql.MySQLError)


def test_two_pairs_and_a_port_in_use_by_another_program_do_not_disturb_each_other(
    pair: ServerPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(processes, "free_port", lambda: next(ports, None) or launch.free_port())
        with type(pair)() as other:
            assert other.master["port"] != taken
            execute(other, "master", "CREATE TABLE other (number INTEGER PRIMARY KEY)")
            other.wait_caught_up()
            assert execute(other, "slave", "SHOW TABLES") == [("other",)]
            other.kill("slave")
            assert ("other",) not in execute(pair, "slave", "SHOW TABLES")
        assert execute(pair, "slave", "SELECT 1") == [(1,)]


def test_a_killed_server_that_is_started_waits_for_its_own_port(pair: ServerPair) -> None:
    port = pair.slaves[0]["port"]
    pair.kill("slave")
    stranger = socket.create_server(("127.0.0.1", port))
    timer = threading.Timer(0.3, stranger.close)
    timer.start()
    pair.start("slave")
    timer.join()
    assert pair.slaves[0]["port"] == port
    assert execute(pair, "slave", "SELECT 1") == [(1,)]


def test_a_slave_whose_relay_logs_were_damaged_by_kill_replicates_again(pair: ServerPair) -> None:
    pair.kill("slave")
    relay_logs = list(pair._data("slave").glob("relaylog.0*"))
    assert relay_logs
    for relay_log in relay_logs:
        relay_log.unlink()
    pair.start("slave")
    execute(pair, "master", "INSERT INTO message VALUES (1)")
    pair.wait_caught_up()
    assert execute(pair, "slave", "SELECT number FROM message") == [(1,)]


def test_a_server_that_does_not_start_shows_its_log(
    gone: Callable[[Path], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(MariaDBPair):
        folder = Path()

        def _command(self, name: str, port: int) -> list[str]:
            Wrong.folder = self._data(name).parent
            return [*super()._command(name, port), "--no-such-option"]

    pair = Wrong()
    with pytest.raises(ServerStartError, match=r"unknown (option|variable) '(--)?no-such-option") as raised:
        pair.start()
    assert raised.value.server == "master"
    assert "no-such-option" in raised.value.log
    assert gone(Wrong.folder)
    pair.close()


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (MariaDBPair, r"is not on this machine .* apt-get install mariadb-server-core mariadb-client-core"),
        (MySQLPair, r"MySQL's mysqld is not on this machine .* `make mysql`"),
    ],
)
def test_a_missing_server_is_an_error_with_the_package_to_install(
    kind: type[ServerPair], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PATH", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "/nowhere")
    monkeypatch.setattr(launch, "SBIN", ())
    with pytest.raises(ServerNotFoundError, match=advice):
        kind().start()


class TestWhichMySQL:
    """A stand-in that prints its version, in each place where a server may be."""

    @pytest.fixture
    def put(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
        monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "alias"), str(tmp_path / "bin"), "/bin"]))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(launch, "SBIN", ())

        def make(folder: str, version: str) -> str:
            program = tmp_path / folder / "mysqld"
            program.parent.mkdir(parents=True)
            program.write_text(f"#!/bin/sh\necho '{program} {version}'\n")
            program.chmod(0o755)
            return str(program)

        return make

    def test_a_mysqld_that_is_mariadb_is_not_used(self, put: Callable[[str, str], str]) -> None:
        put("alias", "Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)")
        with pytest.raises(ServerNotFoundError):
            find_mysqld()
        fetched = put("cache/replswitch/mysql", "Ver 9.7.4-2 for Linux on x86_64 ((Debian))")
        assert find_mysqld() == fetched

    def test_a_mysqld_in_the_path_is_used_before_others(self, put: Callable[[str, str], str]) -> None:
        put("cache/replswitch/mysql", "Ver 9.7.4-2 for Linux on x86_64 ((Debian))")
        installed = put("bin", "Ver 8.4.5 for Linux on x86_64 (MySQL Community Server - GPL)")
        assert find_mysqld() == installed
