"""The state of the servers in a report, on each kind of pair. `tests/test_flask/test_command.py` has every state."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch import ConfigurationError
from replswitch.drivers.mysql_settings import time_limits
from replswitch.report import TIMEOUT, Asked, ServerStatus, problems, servers_of, statuses, table

if TYPE_CHECKING:
    from replswitch.testing import ReplicatedPair


def test_the_report_lists_a_replicating_pair(replicated_pair: ReplicatedPair) -> None:
    pair = replicated_pair
    with replswitch.connect(pair.master, pair.slaves, driver=pair.driver) as db:
        master, slave = statuses(servers_of(db))
        assert db.database.name == ("main" if pair.driver == "sqlite3" else "shop")
    assert (master.state, slave.state) == ("master", "slave")
    assert master.reachable
    assert slave.reachable
    assert master.identity
    assert slave.identity
    assert master.identity != slave.identity
    assert problems("shop", [master, slave]) == []
    expected = (None, None, None) if pair.driver == "sqlite3" else (True, "running", 0)
    assert (slave.read_only, slave.replication, slave.behind) == expected


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_the_report_works_with_the_cursor_class_of_the_application(mariadb_pair: ReplicatedPair, driver: str) -> None:
    kind = import_module({"pymysql": "pymysql", "mysqlclient": "MySQLdb"}[driver] + ".cursors").DictCursor
    mariadb_pair.wait_caught_up()
    with replswitch.connect({**mariadb_pair.master, "cursorclass": kind}, mariadb_pair.slaves, driver=driver) as db:
        master, slave = statuses(servers_of(db))
    assert master.version
    assert "MariaDB" in master.version
    assert any(grant.startswith("GRANT ") for grant in master.grants)
    assert (slave.read_only, slave.replication) == (True, "running")


def test_the_report_creates_no_missing_sqlite_file(tmp_path: Any) -> None:
    missing = tmp_path / "missing.db"
    with replswitch.connect({"database": str(missing)}, driver="sqlite3") as db:
        master, slave = statuses(servers_of(db))
    assert master.problem == slave.problem == "no connection: unable to open database file"
    assert not missing.exists()


def test_a_sqlite_file_that_is_no_database_is_a_problem(tmp_path: Any) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear reader, " * 100)
    with replswitch.connect({"database": str(file)}, driver="sqlite3") as db:
        master, slave = statuses(servers_of(db))
    assert (master.reachable, slave.reachable) == (False, False)
    assert master.problem == slave.problem == "no connection: file is not a database"


def test_the_report_has_the_grants_of_the_user_and_does_not_show_them(replicated_pair: ReplicatedPair) -> None:
    pair = replicated_pair
    with replswitch.connect(pair.master, pair.slaves, driver=pair.driver) as db:
        for each in statuses(servers_of(db)):
            assert any(grant.startswith("GRANT ") for grant in each.grants) is (pair.driver == "pymysql")
            assert "GRANT" not in repr(each)


def test_the_report_shows_no_password(mariadb_pair: ReplicatedPair) -> None:
    secret = {**mariadb_pair.master, "password": "s3cret"}
    with replswitch.connect(secret, [{"port": 1}]) as db:
        servers = servers_of(db)
    assert "s3cret" not in repr(servers)


class Unknown:
    """A connection of an unknown driver."""

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "is_master"),
    [("here", True), ("there", False), (None, False)],
    ids=["address of the master", "another address", "no address"],
)
def test_a_slave_with_the_address_of_the_master_is_noted(address: str | None, is_master: bool) -> None:
    def look(timeout: float) -> Any:
        return Unknown()

    master = Asked("master", "db", look, OSError, address and "here")
    found = statuses([master, Asked("slave", "db", look, OSError, address)])
    assert [each.is_master for each in found] == [False, is_master]
    assert (found[1].note == "it is the master itself") is is_master


def test_errors_of_replswitch_are_reported_with_their_own_text() -> None:
    def fail(timeout: float) -> Any:
        raise ConfigurationError("There is no such file.")

    (master,) = statuses([Asked("master", "missing.db", fail, OSError)])
    assert (master.reachable, master.problem) == (False, "There is no such file.")


@pytest.mark.parametrize(("given", "expected"), [(None, [TIMEOUT, 7]), (2, [2, 2])])
def test_the_report_uses_the_given_timeout_or_the_connect_timeout_of_each_server(
    given: float | None, expected: list[float]
) -> None:
    seconds: dict[str, float] = {}

    def server(name: str, **own: Any) -> Asked:
        def look(timeout: float) -> Any:
            seconds[name] = timeout
            return Unknown()

        return Asked("master", name, look, OSError, **own)

    statuses([server("first"), server("second", timeout=7)], given)
    assert [seconds["first"], seconds["second"]] == expected


@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 1), (5, 5), (5.5, 6)])
def test_drivers_get_the_timeout_in_whole_seconds(seconds: float, limit: int) -> None:
    assert time_limits(seconds) == {"connect_timeout": limit, "read_timeout": limit}


def test_the_report_queries_the_servers_in_parallel() -> None:
    together = threading.Barrier(3)

    def look(timeout: float) -> Any:
        together.wait(timeout)
        return Unknown()

    found = statuses([Asked(state, f"{state}.db", look, OSError, timeout=60) for state in ("master", "slave", "slave")])
    assert [each.reachable for each in found] == [True] * 3


def test_a_server_that_does_not_answer_is_reported_after_the_timeout() -> None:
    done = threading.Event()

    def never(timeout: float) -> Any:
        done.wait()
        raise OSError

    try:
        (master,) = statuses([Asked("master", "silent.db", never, OSError, timeout=0.1)])
    finally:
        done.set()
    assert (master.server, master.reachable, master.problem) == ("silent.db", False, "no answer within 0.1 s")


def test_a_server_of_an_unknown_driver_is_listed_with_a_note() -> None:
    (master,) = statuses([Asked("master", "other.db", lambda timeout: Unknown(), OSError)])
    assert (master.reachable, master.problem) == (True, None)
    assert master.note is not None
    assert "does not know what to query" in master.note


@pytest.mark.parametrize("error", [ValueError("what?"), OSError(2, "No such host"), KeyError()])
def test_any_error_while_connecting_is_reported_as_a_problem(error: Exception) -> None:
    def fail(timeout: float) -> Any:
        raise error

    (master,) = statuses([Asked("master", "broken.db", fail, OSError)])
    assert str(master.problem).startswith("no connection: ")


def test_the_table_has_a_line_for_each_server() -> None:
    found = [
        ServerStatus("master", "master.db", reachable=True, version="10.11.6-MariaDB", read_only=False),
        ServerStatus("slave", "slave.db", note="what else there is", replication="running", behind=3, read_only=True),
    ]
    assert table("shop", found).split("\n") == [
        "shop",
        "  state   server     reachable  version          read_only  replication  behind",
        "  master  master.db  yes        10.11.6-MariaDB  no         -            -",
        "  slave   slave.db   no         -                yes        running      3 s",
        "  slave slave.db: what else there is",
    ]
    assert found[1].as_json()["behind"] == 3
