"""GTIDs that are not the usual ones: MariaDB's further replication domains, the tags of MySQL 8.3 and later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.test_core.test_restarted_replication import restart_replication

from replswitch import MASTER, SLAVE, Connection, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import ReplicatedPair
from replswitch.testing.sessions import SessionPair

Make = Callable[..., Connection]

mariadb = pytest.mark.parametrize("served", ["mariadb", "mariadb-mysqlclient"], indirect=True)
mysql = pytest.mark.parametrize("served", ["mysql", "mysql-mysqlclient"], indirect=True)
servers = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)


@pytest.fixture
def pair(replicated_pair: ReplicatedPair) -> SessionPair:
    assert isinstance(replicated_pair, SessionPair)
    return replicated_pair


def allow(pair: SessionPair, *privileges: str) -> None:
    with closing(pair.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(f"GRANT {', '.join(privileges)} ON *.* TO '{pair.master['user']}'@'%'")
    pair.wait_caught_up()


def write(db: Connection, number: int) -> None:
    with use_master(), db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message (id) VALUES ({number})")


def read(db: Connection, token: str) -> tuple[str, int]:
    """The side that serves, and how many messages there are."""
    with resume(token), use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        (count,) = cursor.fetchone()
        return db.queries[-1]["db"], count


def position(token: str) -> str:
    (text,) = json.loads(token)["p"].values()
    return str(text)


@pytest.fixture
def other_domain(pair: SessionPair, make: Make) -> Callable[..., Connection]:
    """Make a connection that writes in a domain of its own."""
    allow(pair, "BINLOG REPLAY")
    return lambda number, **options: make(
        master={**pair.master, "init_command": f"SET SESSION gtid_domain_id = {number}"}, **options
    )


@pytest.fixture
def ignoring(pair: SessionPair) -> Iterator[None]:
    """The slave does not replicate domain 8."""

    def ignore(domains: str) -> None:
        with closing(pair.admin("slave")) as admin, admin.cursor() as cursor:
            cursor.execute("STOP SLAVE")
            cursor.execute(f"CHANGE MASTER TO IGNORE_DOMAIN_IDS = ({domains})")
            cursor.execute("START SLAVE")

    ignore("8")
    yield
    ignore("")
    restart_replication(pair)  # later tests need a slave that has all domains of the master
    pair.start_slave()


class TestDomains:
    @mariadb
    def test_writes_in_two_domains_are_both_seen(self, make: Make, pair: SessionPair, other_domain: Any) -> None:
        usual, other = make(), other_domain(7)
        with use_master():
            write(usual, 1)
            pair.wait_caught_up()
            pair.stop_slave()  # it has the one
            write(other, 2)
            token = carry()
        assert [gtid.partition("-")[0] for gtid in position(token).removeprefix("mariadb:").split(",")] == ["0", "7"]
        assert read(usual, token) == (MASTER, 2)
        pair.start_slave()
        pair.wait_caught_up()
        assert read(usual, token) == (SLAVE, 2)
        assert read(other, token) == (SLAVE, 2)

    @pytest.mark.parametrize("served", ["mariadb"], indirect=True)  # takes a lag's time, as below
    def test_a_read_waits_for_a_write_in_another_domain(self, make: Make, pair: SessionPair, other_domain: Any) -> None:
        db = other_domain(7, wait=20)
        pair.lag = 1
        with use_master():
            write(db, 1)
            token = carry()
        assert read(db, token) == (SLAVE, 1)

    @mariadb
    @pytest.mark.usefixtures("ignoring")
    @pytest.mark.parametrize("wait", [0, 0.05])
    def test_a_slave_that_ignores_a_domain_does_not_serve_reads_of_its_writes(
        self, make: Make, pair: SessionPair, other_domain: Any, wait: float
    ) -> None:
        """Its position in that domain advances in spite of it, past the ignored writes."""
        usual, other = make(wait=wait), other_domain(8, wait=wait)
        with use_master():
            write(other, 1)
            token = carry()
        with use_master():
            write(usual, 2)
            usual_token = carry()
        for _ in range(3):
            assert read(other, token) == (MASTER, 2)
        pair.wait_caught_up()
        assert read(usual, usual_token) == (SLAVE, 1)  # what it does replicate it serves
        assert read(other, token) == (MASTER, 2)


class TestTags:
    @mysql
    def test_a_write_with_a_tag_is_seen(self, make: Make, pair: SessionPair) -> None:
        allow(pair, "TRANSACTION_GTID_TAG", "SESSION_VARIABLES_ADMIN")
        usual = make()
        tagged = make(master={**pair.master, "init_command": "SET SESSION gtid_next = 'AUTOMATIC:jobs'"})
        with use_master():
            write(usual, 1)
            pair.wait_caught_up()
            pair.stop_slave()  # it has the one
            write(tagged, 2)
            token = carry()
        assert ":jobs:" in position(token)
        assert read(usual, token) == (MASTER, 2)
        pair.start_slave()
        pair.wait_caught_up()
        assert read(usual, token) == (SLAVE, 2)
        assert read(tagged, token) == (SLAVE, 2)

    @pytest.mark.parametrize("served", ["mysql-mysqlclient"], indirect=True)
    def test_a_read_waits_for_a_write_with_a_tag(self, make: Make, pair: SessionPair) -> None:
        allow(pair, "TRANSACTION_GTID_TAG", "SESSION_VARIABLES_ADMIN")
        db = make(master={**pair.master, "init_command": "SET SESSION gtid_next = 'AUTOMATIC:jobs'"}, wait=20)
        pair.lag = 1
        with use_master():
            write(db, 1)
            token = carry()
        assert read(db, token) == (SLAVE, 1)


@servers
def test_a_slave_with_the_address_of_the_master_is_read_without_a_wait(
    make: Make, pair: SessionPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait there would take all the time that there is: MASTER_GTID_WAIT looks at what was replicated."""
    db = make(slaves=[pair.master], wait=20)
    monkeypatch.setattr(db._driver, "wait_for", lambda *_: pytest.fail("it was waited for"))
    with use_master():
        write(db, 1)
        token = carry()
    assert read(db, token) == (SLAVE, 1)
