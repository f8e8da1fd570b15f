"""What a MariaDBPair has beyond the contract, and how its start can fail."""

from __future__ import annotations

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
    NotCaughtUpError,
    PairError,
    ServerNotFoundError,
    ServerStartError,
    launch,
    servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def started() -> Iterator[MariaDBPair]:
    with MariaDBPair() as pair:
        yield pair


@pytest.fixture
def pair(started: MariaDBPair) -> MariaDBPair:
    started.reset()
    execute(started, "master", "CREATE OR REPLACE TABLE message (number INTEGER PRIMARY KEY)")
    started.wait_caught_up()
    return started


def execute(pair: MariaDBPair, name: str, sql: str) -> list[Any]:
    with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def test_the_parameters_are_complete_and_no_more(pair: MariaDBPair) -> None:
    assert set(pair.master) == set(pair.slaves[0]) == {"host", "port", "user", "password", "database"}
    assert pair.driver == "pymysql"


@pytest.mark.parametrize("lag", [0.5, 2.5])
def test_a_lag_is_a_whole_number_of_seconds(pair: MariaDBPair, lag: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"lag={lag}: MariaDB lags by whole seconds"):
        pair.lag = lag


def test_a_slave_is_read_only_for_the_application(pair: MariaDBPair) -> None:
    with pytest.raises(pymysql.err.OperationalError) as raised:
        execute(pair, "slave", "INSERT INTO message VALUES (1)")
    assert raised.value.args[0] == 1290


def test_the_application_may_have_test_databases_and_see_replication(pair: MariaDBPair) -> None:
    execute(pair, "master", "CREATE DATABASE test_shop")
    execute(pair, "master", "DROP DATABASE test_shop")
    assert execute(pair, "slave", "SHOW SLAVE STATUS")
    assert execute(pair, "master", "SHOW MASTER STATUS")
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        execute(pair, "master", "CREATE DATABASE other")


def test_nobody_gets_in_without_a_password(pair: MariaDBPair) -> None:
    for user in ("root", "replication", "shop", "", "mariadb.sys"):
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(host="127.0.0.1", port=pair.master["port"], user=user)


def test_text_is_unicode(pair: MariaDBPair) -> None:
    execute(pair, "master", "CREATE OR REPLACE TABLE words (word VARCHAR(20))")
    execute(pair, "master", "INSERT INTO words VALUES ('Größe 🐬')")
    pair.wait_caught_up()
    assert execute(pair, "slave", "SELECT word FROM words WHERE word = 'Größe 🐬'") == [("Größe 🐬",)]


def test_statements_are_those_of_the_application(pair: MariaDBPair) -> None:
    with pair.statements("slave") as received:
        assert execute(pair, "slave", "SELECT 'ü%', 1 +\n 1") == [("ü%", 2)]
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        execute(pair, "master", "CREATE OR REPLACE TABLE words (word VARCHAR(20))")
        pair.wait_caught_up()
        pair.status("slave", "Questions")
    assert [one for one in received if not one.startswith("SET ")] == ["SELECT 'ü%', 1 +\n 1"]
    execute(pair, "slave", "SELECT 2")
    with pair.statements("slave") as received:
        pass
    assert received == []


def test_statements_are_told_when_the_block_fails(pair: MariaDBPair) -> None:
    with suppress(ZeroDivisionError), pair.statements("master") as received:
        execute(pair, "master", "SELECT 1")
        raise ZeroDivisionError
    assert "SELECT 1" in received


def test_statements_are_recorded_once_at_a_time(pair: MariaDBPair) -> None:
    with (
        pair.statements("slave"),
        pytest.raises(PairError, match="the slave are being recorded already"),
        pair.statements("slave"),
    ):
        pass


def test_recording_leaves_no_trace_in_replication(pair: MariaDBPair) -> None:
    before = execute(pair, "slave", "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos")
    with pair.statements("slave"), pair.statements("master"):
        pass
    pair.wait_caught_up()
    assert execute(pair, "slave", "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos") == before


def test_status_counts(pair: MariaDBPair) -> None:
    before = pair.status("slave", "Com_select")
    execute(pair, "slave", "SELECT 1")
    assert pair.status("slave", "Com_select") == before + 1
    for variable in ("Com_selct", "Rpl_semi_sync_master_status", "%"):
        with pytest.raises(ConfigurationError, match=f"'{variable}' is no counter .* of the slave"):
            pair.status("slave", variable)


def test_admin_may_do_everything(pair: MariaDBPair) -> None:
    with (
        closing(pair.connect("slave")) as victim,
        victim.cursor() as cursor,
        closing(pair.admin("slave")) as admin,
    ):
        cursor.execute("SELECT CONNECTION_ID()")
        admin.cursor().execute("KILL %s", cursor.fetchone())
        with pytest.raises(pymysql.MySQLError):
            cursor.execute("SELECT 1")


def test_replication_that_has_failed_is_told_at_once(pair: MariaDBPair) -> None:
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


def test_what_a_server_refuses_to_the_pair_is_an_error_of_the_pair(pair: MariaDBPair) -> None:
    with pytest.raises(PairError, match=r"the slave failed at 'NONSENSE': .*1064") as raised:
        pair._run("slave", "NONSENSE")
    assert isinstance(raised.value.__cause__, pymysql.MySQLError)


def test_two_pairs_do_not_disturb_each_other_nor_a_stranger_who_has_the_port(
    pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports, None) or launch.free_port())
        with MariaDBPair() as other:
            assert other.master["port"] != taken
            execute(other, "master", "CREATE TABLE other (number INTEGER PRIMARY KEY)")
            other.wait_caught_up()
            assert execute(other, "slave", "SHOW TABLES") == [("other",)]
            other.kill("slave")
            assert ("other",) not in execute(pair, "slave", "SHOW TABLES")
        assert execute(pair, "slave", "SELECT 1") == [(1,)]


def test_a_killed_server_waits_for_its_own_port(pair: MariaDBPair) -> None:
    port = pair.slaves[0]["port"]
    pair.kill("slave")
    stranger = socket.create_server(("127.0.0.1", port))
    timer = threading.Timer(0.3, stranger.close)
    timer.start()
    pair.start("slave")
    timer.join()
    assert pair.slaves[0]["port"] == port
    assert execute(pair, "slave", "SELECT 1") == [(1,)]


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


def test_a_machine_without_mariadb_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(launch, "SBIN", ())
    with pytest.raises(ServerNotFoundError, match=r"is not on this machine .* apt-get install mariadb-server"):
        MariaDBPair().start()
