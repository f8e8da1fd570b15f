"""P2: two slaves that were cloned from one server report the same identity, but are not taken for one server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

import replswitch
from replswitch import SLAVE, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import MariaDBPair


@pytest.fixture
def twins(message_pair: MariaDBPair) -> Iterator[MariaDBPair]:
    """A master and two slaves with the same ``server_id`` and host name. The second slave has stopped."""
    message_pair.stop_slave("slave2")
    with closing(message_pair.admin("slave")) as one, closing(message_pair.admin("slave2")) as two:
        with one.cursor() as cursor:
            cursor.execute("SELECT @@server_id")
            (number,) = cursor.fetchone()
        with two.cursor() as cursor:
            cursor.execute("SELECT @@server_id")
            (own,) = cursor.fetchone()
            cursor.execute(f"SET GLOBAL server_id = {number}")
            yield message_pair
            cursor.execute(f"SET GLOBAL server_id = {own}")


def test_p2_the_position_of_a_slave_is_not_taken_for_that_of_its_clone(twins: MariaDBPair) -> None:
    with replswitch.connect(twins.master, twins.slaves, driver="pymysql", debug=True) as db, db.cursor() as cursor:
        with resume(""), use_master():
            cursor.execute("INSERT INTO message (body) VALUES ('mine')")
            token = carry()
        twins.wait_caught_up()
        found = []
        for _ in range(30):  # each scope tries the two slaves in a random order
            with resume(token), use_slave():
                cursor.execute("SELECT body FROM message")
                found.append((db.queries[-1]["db"], cursor.fetchall()))
        assert found == [(SLAVE, (("mine",),))] * 30
