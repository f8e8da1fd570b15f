"""In slave state the master serves what no slave has; and then the master fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from tests.test_django.backend.asking import ask, bodies, kill, link_id
from tests.test_django.project.models import Message

from replswitch import MASTER, SLAVE, NoServerError
from replswitch.testing import MariaDBPair

Served = tuple[str, str]


@pytest.fixture
def reading(django_pair: MariaDBPair, db: Any) -> Iterator[Any]:
    """The connection in a scope that must see its own write, which no slave has."""
    django_pair.stop_slave("slave")
    with db.use_slave():
        with db.use_master():
            Message.objects.create(body="own")
        assert ask(db, "SELECT COUNT(*) FROM project_message") == 1
        assert db.queries[-1]["db"] == MASTER
        yield db


def served(db: Any) -> Served:
    return db.queries[-1]["db"], db.queries[-1]["server"]


def address(parameters: dict[str, Any]) -> str:
    return f"127.0.0.1:{parameters['port']}"


def test_a_lost_connection_reads_again_where_nothing_can_be_written(django_pair: MariaDBPair, reading: Any) -> None:
    killer = threading.Timer(0.3, kill, (django_pair, "master", link_id(reading)))
    killer.start()
    assert ask(reading, "SELECT SLEEP(1), 1") == (0, 1)
    killer.join()
    assert served(reading) == (SLAVE, address(django_pair.master))
    assert ask(reading, "SELECT body FROM project_message") == "own"


def test_a_slave_reads_that_has_it_by_now(django_pair: MariaDBPair, reading: Any) -> None:
    django_pair.start_slave("slave")
    django_pair.wait_caught_up()
    django_pair.kill("master")
    assert ask(reading, "SELECT body FROM project_message") == "own"
    assert served(reading) == (SLAVE, address(django_pair.slaves[0]))


def test_without_one_the_error_names_the_master(django_pair: MariaDBPair, reading: Any) -> None:
    django_pair.kill("master")
    for _ in range(2):
        with pytest.raises(
            NoServerError, match=f"The master {address(django_pair.master)} cannot be reached"
        ) as raised:
            ask(reading, "SELECT body FROM project_message")
        assert isinstance(raised.value, OperationalError)


def test_a_write_whose_answer_is_lost_is_not_done_twice(django_pair: MariaDBPair, reading: Any) -> None:
    django_pair.start_slave("slave")
    django_pair.wait_caught_up()
    with reading.use_master():  # what runs here may have written, so that the master's own connection serves
        master = link_id(reading)
    killer = threading.Timer(0.3, kill, (django_pair, "master", master))
    killer.start()
    with pytest.raises(NoServerError, match=r"lost in a write, at .*not known"):
        ask(reading, "INSERT INTO project_message (body) SELECT CONCAT('slow', SLEEP(1))")
    killer.join()
    assert bodies(django_pair) == ["own"]
