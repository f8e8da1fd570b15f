"""Another server becomes the master, and the old one its slave: what was to be seen before is to be seen after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import Proxy
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from tests.conftest import Served

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)


class Names:
    """A pair with two names that always lead to the present master and slave."""

    def __init__(self, pair: ServerPair, master: Proxy, slave: Proxy) -> None:
        self.pair, self._master, self._slave = pair, master, slave

    @property
    def settings(self) -> dict[str, Any]:
        slave = {**self.pair.slaves[0], "port": self._slave.port}
        return {"master": {**self.pair.master, "port": self._master.port}, "slaves": [slave]}

    def promote(self, *, cut: bool, cut_slave: bool = False) -> None:
        """The other server is the master, and the names lead there; for open connections too, or not."""
        self.pair.promote(self.pair.slave_names[0])
        self._master.target, self._slave.target = self.pair.master["port"], self.pair.slaves[0]["port"]
        if cut:
            self._master.cut()
        if cut or cut_slave:
            self._slave.cut()


@pytest.fixture
def names(served: Served) -> Iterator[Names]:
    pair = served.pair
    assert isinstance(pair, ServerPair)
    with pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS message")
        cursor.execute("CREATE TABLE message (id INT PRIMARY KEY)")
    pair.wait_caught_up()
    with Proxy(pair.master["port"]) as master, Proxy(pair.slaves[0]["port"]) as slave:
        yield Names(pair, master, slave)
    pair.reset()  # others, who know the servers by their addresses, find them as they were


@pytest.fixture
def db(names: Names, served: Served) -> Iterator[Connection]:
    with ExitStack() as closing:
        yield closing.enter_context(replswitch.connect(**names.settings, driver=served.driver, debug=True))


def write(db: Connection, number: int) -> str:
    """Write a number, and return the token of its scope."""
    with use_master(), db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message VALUES ({number})")
        return carry()


def read(db: Connection, token: str = "") -> tuple[str, list[int]]:
    """The side that serves, and the numbers."""
    with resume(token), use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT id FROM message ORDER BY id")
        return db.queries[-1]["db"], [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize("cut", [True, False], ids=["connections cut", "connections stay open"])
def test_a_marker_from_before_a_promotion_is_valid_after_the_promotion(db: Connection, names: Names, cut: bool) -> None:
    old = write(db, 1)
    read(db, old)
    names.pair.stop_slave()
    newer = write(db, 2)
    assert read(db, newer) == (MASTER, [1, 2])
    names.promote(cut=cut)
    for token in (old, newer):
        assert read(db, token) == (SLAVE, [1, 2])
    with resume(newer), use_master(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        assert cursor.fetchone() == (2,)


def test_a_lagging_former_master_does_not_serve_a_marker_from_after_a_promotion(db: Connection, names: Names) -> None:
    old = write(db, 1)
    read(db, old)
    names.promote(cut=True)  # an open link to the old master would still serve reads there
    names.pair.stop_slave(names.pair.slave_names[0])
    new = write(db, 2)
    assert read(db, new) == (MASTER, [1, 2])
    assert read(db, old) == (SLAVE, [1])
    names.pair.start_slave(names.pair.slave_names[0])
    names.pair.wait_caught_up()
    assert read(db, new) == (SLAVE, [1, 2])


def test_markers_stay_valid_across_two_promotions(db: Connection, names: Names) -> None:
    """Each server has been the master once, and a marker asks for what both have written."""
    tokens = [write(db, 1)]
    for number in (2, 3):
        names.promote(cut=True)
        names.pair.stop_slave(names.pair.slave_names[0])
        with resume(tokens[-1]):
            write(db, number)
            tokens.append(carry())
        assert read(db, tokens[-1]) == (MASTER, list(range(1, number + 1)))
    names.pair.start_slave(names.pair.slave_names[0])
    names.pair.wait_caught_up()
    assert [read(db, token) for token in tokens] == [(SLAVE, [1, 2, 3])] * 3


def test_reads_in_master_state_go_to_the_new_master_after_a_promotion(db: Connection, names: Names) -> None:
    """With mysqlclient it serves them on a connection of its own, which is open still."""
    read(db, write(db, 1))
    names.pair.stop_slave()
    assert read(db, write(db, 2)) == (MASTER, [1, 2])
    names.pair.start_slave()
    names.pair.wait_caught_up()
    names.promote(cut=False, cut_slave=True)
    names.pair.stop_slave(names.pair.slave_names[0])
    write(db, 3)  # finds out who is the master, and that holds by time
    assert read(db, write(db, 4)) == (MASTER, [1, 2, 3, 4])
