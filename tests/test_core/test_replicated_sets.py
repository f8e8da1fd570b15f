"""M8: positions belong to a replicated set. All connections to one master share it, also for different databases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_core.test_positions_on_servers import count, insert, last, scope, written

import replswitch
from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from tests.test_core.conftest import Make

    from replswitch.testing import ReplicatedPair

SERVERS = ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"]


def test_m8_a_write_through_one_connection_is_seen_through_another_in_the_same_request(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    one, two = make(), make()
    replicated_pair.stop_slave()
    with use_master():
        insert(one, 1)
        with use_slave():
            assert count(two) == 1
        assert last(two) == (MASTER, "own-write")


def test_m8_a_write_through_one_connection_is_seen_through_another_in_the_next_request(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    one, two = make(), make()
    replicated_pair.stop_slave()
    with use_master():
        insert(one, 1)
        token = carry()
    with resume(token), use_slave():
        assert count(two) == 1
    assert last(two) == (MASTER, "marker")


@pytest.mark.parametrize("served", SERVERS, indirect=True)
def test_m8_a_write_is_seen_through_a_connection_to_another_database_of_the_server(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    shop, log = make(), make(master={**replicated_pair.master, "database": "information_schema"})
    replicated_pair.stop_slave()
    with use_master():
        insert(shop, 1)
        with use_slave(), log.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM shop.message")
            assert cursor.fetchone()[0] == 1
    assert last(log) == (MASTER, "own-write")


@pytest.mark.parametrize("served", SERVERS, indirect=True)
def test_m8_a_write_of_unknown_position_keeps_other_connections_on_the_master(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    one, two, apart = make(), make(), make(name="apart")
    with use_master():
        one.database.writes.record_unknown(is_lost=True)  # as after a commit whose result was lost
        with use_slave():
            count(two)
            count(apart)
        assert scope().forced_master == {one.database.set_name: "own-write"}
    assert (last(two), last(apart)[0]) == ((MASTER, "own-write"), SLAVE)


def test_m8_a_write_that_was_moved_is_seen_through_another_connection(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    one, two = make(), make()
    replicated_pair.stop_slave()
    with use_slave():
        insert(one, 1)
        assert count(two) == 1


def test_m8_the_option_name_keeps_sets_apart(make: Make, replicated_pair: ReplicatedPair) -> None:
    one, two = make(name="one"), make(name="two")
    replicated_pair.stop_slave()
    with use_master():
        insert(one, 1)
        assert written() == {"one"}
        with use_slave():
            assert count(two) == 0


@pytest.mark.parametrize("served", SERVERS, indirect=True)
def test_m8_the_option_name_makes_one_set_of_the_host_and_the_socket_of_a_master(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    one = make(name="shop")
    with one.cursor() as cursor:
        cursor.execute("SELECT @@socket")
        (socket,) = cursor.fetchone()
    two = make(name="shop", master={**replicated_pair.master, "unix_socket": socket, "host": "localhost"})
    assert two.servers.master.name == socket
    replicated_pair.stop_slave()
    with use_master():
        insert(two, 1)
        with use_slave():
            assert count(one) == 1


def connected(**options: Any) -> Connection:
    return replswitch.connect(**options)


SERVER: dict[str, Any] = {"host": "master.db", "user": "shop", "password": "s3cret", "database": "shop"}

SAME: dict[str, dict[str, Any]] = {
    "another password": {**SERVER, "password": "another"},
    "another user": {**SERVER, "user": "another"},
    "another database": {**SERVER, "database": "log"},
    "no database": {"host": "master.db"},
    "default port": {**SERVER, "port": 3306},
    "host in capitals": {**SERVER, "host": "Master.DB"},
    "host with a final dot": {**SERVER, "host": "master.db."},
}

OTHERS: dict[str, dict[str, Any]] = {
    "host": {**SERVER, "host": "slave.db"},
    "port": {**SERVER, "port": 3307},
    "socket": {"unix_socket": "/run/mysqld/mysqld.sock"},
    "file": {"read_default_file": "/etc/my.cnf", "database": "shop"},
    "here": {"database": "shop"},
}


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
@pytest.mark.parametrize("settings", SAME.values(), ids=SAME)
def test_m8_the_set_is_named_by_the_address_of_the_master_alone(settings: dict[str, Any], driver: Any) -> None:
    one, two = connected(master=SERVER), connected(master=settings, driver=driver)
    assert one.database.set_name == two.database.set_name


def test_m8_masters_with_different_addresses_are_different_sets() -> None:
    names = {connected(master=settings).database.set_name for settings in (SERVER, *OTHERS.values())}
    assert len(names) == 1 + len(OTHERS)


def test_m8_the_set_of_a_sqlite_file_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    same = ["shop.db", str(tmp_path / "shop.db"), f"{tmp_path}/../{tmp_path.name}/shop.db", tmp_path / "shop.db"]
    found = [{"database": each} for each in same]
    (tmp_path / "link").symlink_to(tmp_path)
    found += [
        {"database": tmp_path / "link" / "shop.db"},
        {"database": f"file:{tmp_path}/shop.db?mode=rwc", "uri": True},
    ]
    found.append({"database": "file:shop.db", "uri": True})
    names = {connected(master=each, driver="sqlite3").database.set_name for each in found}
    assert len(names) == 1
    (tmp_path / "other").mkdir()
    other = connected(master={"database": tmp_path / "other" / "shop.db"}, driver="sqlite3")
    assert other.database.set_name not in names


def test_m8_the_name_in_markers_is_short_and_shows_no_address() -> None:
    name = connected(master=SERVER).database.set_name
    assert len(name) == 8
    assert name.isalnum()
    assert name.islower()


def test_m8_messages_name_the_database_or_the_host_if_no_database_is_given() -> None:
    assert connected(master=SERVER).database.name == "shop"
    assert connected(master={"host": "master.db"}).database.name == "master.db"
    named = connected(master=SERVER, name="orders").database
    assert (named.name, named.set_name) == ("orders", "orders")
