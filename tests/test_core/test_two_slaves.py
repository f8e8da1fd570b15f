"""Two slaves: the one that has what is to be seen serves, and a name may lead to now this one, now that one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import cycle
from typing import Any

import pytest

import replswitch
from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import MariaDBPair, MySQLPair, Proxy, ReplicatedPair, SQLitePair
from replswitch.testing.servers import ServerPair

COUNT = "SELECT COUNT(*) FROM message"

PAIRS: dict[str, type[ReplicatedPair]] = {"mariadb": MariaDBPair, "mysql": MySQLPair, "sqlite": SQLitePair}


@pytest.fixture(scope="module", params=PAIRS)
def two_slaves_of_module(request: pytest.FixtureRequest) -> Iterator[ReplicatedPair]:
    request.getfixturevalue(f"{request.param}_pair_of_session")  # skips, or fails, where there is no server
    with PAIRS[request.param](slaves=2) as pair:
        yield pair


@pytest.fixture
def two_slaves(two_slaves_of_module: ReplicatedPair) -> ReplicatedPair:
    """A master and two slaves, with an empty table of messages."""
    two_slaves_of_module.reset()
    plain = two_slaves_of_module.connect()
    cursor = plain.cursor()
    cursor.execute("DROP TABLE IF EXISTS message")
    cursor.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body VARCHAR(100))")
    plain.close()
    two_slaves_of_module.wait_caught_up()
    return two_slaves_of_module


def open_db(pair: ReplicatedPair, **options: Any) -> Connection:
    options = {"master": pair.master, "slaves": pair.slaves, "driver": pair.driver, "debug": True, **options}
    return replswitch.connect(**options)


def name_of(db: Connection, slave: int) -> str:
    return db.servers.slaves[slave].name


def insert(db: Connection, number: int) -> None:
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message (id, body) VALUES ({number}, 'hello')")


def count(db: Connection) -> int:
    with db.cursor() as cursor:
        cursor.execute(COUNT)
        return int(cursor.fetchone()[0])


class TestTwoNames:
    def test_the_slave_that_has_the_write_serves(self, two_slaves: ReplicatedPair) -> None:
        with open_db(two_slaves) as db:
            two_slaves.stop_slave("slave2")
            for number in range(8):
                with use_master():
                    insert(db, number)
                    two_slaves.wait_caught_up()
                    with db.use_slave():
                        assert count(db) == number + 1
                        assert count(db) == number + 1
                assert (db.queries[-1]["server"], db.queries[-1]["db"]) == (name_of(db, 0), SLAVE)

    def test_a_slave_that_lags_serves_scopes_without_writes(self, two_slaves: ReplicatedPair) -> None:
        with open_db(two_slaves) as db:
            two_slaves.stop_slave("slave2")
            with use_master():
                insert(db, 1)
            used = set()
            for _ in range(40):
                with use_slave():
                    count(db)
                used.add(db.queries[-1]["server"])
            assert used == {name_of(db, 0), name_of(db, 1)}

    def test_s6_a_scope_keeps_the_slave_that_has_its_writes(self, two_slaves: ReplicatedPair) -> None:
        with open_db(two_slaves) as db:
            for number in range(8):
                with use_master():
                    with db.use_slave():
                        count(db)
                    before = db.queries[-1]["server"]
                    insert(db, number)
                    two_slaves.wait_caught_up()
                    with db.use_slave():
                        assert count(db) == number + 1
                    assert db.queries[-1]["server"] == before

    def test_a_read_tries_the_other_slave_before_it_waits_for_a_slave_that_lags(
        self, two_slaves: ReplicatedPair
    ) -> None:
        two_slaves.stop_slave("slave2")
        with open_db(two_slaves, wait=20) as db:
            for number in range(6):
                with use_master():
                    insert(db, number)
                    two_slaves.wait_caught_up()
                    with db.use_slave():
                        assert count(db) == number + 1
                assert db.queries[-1]["server"] == name_of(db, 0)
                assert db.queries[-1]["time"] < 20


class Balancer(Proxy):
    """A name that leads to now this server, now that one."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = cycle(ports)
        super().__init__(ports[0])

    @property  # type: ignore[misc]  # nobody sets it
    def target(self) -> tuple[str, int]:
        return "127.0.0.1", next(self._ports)


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
@pytest.mark.parametrize("two_slaves_of_module", ["mariadb", "mysql"], indirect=True)
class TestSlavesBehindOneName:
    """P2: nothing is stale, though one of the two has stopped."""

    @pytest.fixture
    def name(self, two_slaves: ReplicatedPair) -> Iterator[Balancer]:
        two_slaves.stop_slave("slave2")
        with Balancer([slave["port"] for slave in two_slaves.slaves]) as name:
            yield name

    @pytest.fixture
    def db(self, two_slaves: ReplicatedPair, name: Balancer, driver: str) -> Iterator[Connection]:
        slaves = [{**two_slaves.slaves[0], "port": name.port}]
        with closing(open_db(two_slaves, slaves=slaves, driver=driver, downtime=0)) as db:
            yield db

    def test_p2_a_position_learnt_from_one_server_behind_a_name_is_not_assumed_of_another(
        self, db: Connection, two_slaves: ReplicatedPair, name: Balancer
    ) -> None:
        sides = []
        for number in range(1, 21):
            with use_master():
                insert(db, number)
                token = carry()
            two_slaves.wait_caught_up()
            for _ in range(2):  # what one of them has was learnt of a link, and is not believed of the other
                with resume(token), use_slave():
                    assert count(db) == number
                sides.append(db.queries[-1]["db"])
                name.cut()
        assert {SLAVE, MASTER} == set(sides)

    def test_eight_visitors_behind_a_balancer_miss_no_own_write(
        self, db: Connection, two_slaves: ReplicatedPair
    ) -> None:
        assert isinstance(two_slaves, ServerPair)
        together = threading.Barrier(8)

        def read(sql: str) -> Any:
            with use_slave(), db.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()

        def visit(visitor: int) -> tuple[list[int], set[int], set[int]]:
            """Return what was missed, and which servers have served a visitor's own pages and a stranger's."""
            missed, own, strange = [], set(), set()
            for number in range(visitor * 100 + 1, visitor * 100 + 21):
                together.wait(30)  # so that links to both are in use
                with use_master():
                    insert(db, number)
                    token = carry()
                for pause in (0, 0.01):
                    time.sleep(pause)
                    with resume(token):
                        found, server = read(f"SELECT COUNT(*), @@server_id FROM message WHERE id = {number}")
                    own.add(server)
                    missed += [] if found else [number]
                strange.add(read("SELECT @@server_id")[0])
            return missed, own, strange

        with ThreadPoolExecutor(8) as pool:
            missed, own, strange = zip(*pool.map(visit, range(8)), strict=True)
        assert missed == ([],) * 8
        assert set().union(*strange) == {2, 3}, "the name did not lead to both, so nothing was tested"
        assert set().union(*own) == {1, 2}
