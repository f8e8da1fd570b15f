"""Django's connection pools (``OPTIONS["pool"]``), one a server. `test_postgresql.py` runs them with psycopg 3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from tests.ended_links import kill
from tests.eventually import eventually
from tests.test_django.backend.asking import ask, bodies, link_id, sides
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message

from replswitch import MASTER, SLAVE, carry, resume

WRITES = "CREATE OR REPLACE FUNCTION writes() RETURNS int VOLATILE LANGUAGE sql AS $$ {} RETURNING 1 $$"
ADDS = WRITES.format("INSERT INTO project_message (body) VALUES ('new')")


@pytest.fixture
def pooled(make: Any) -> Iterator[Any]:
    """A connection whose links are from pools of one connection each."""
    db = make(OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 5}})
    yield db
    db.close()
    db.close_pool()


def count(db: Any) -> int:
    return Message.objects.using(db.alias).count()


def test_links_to_each_server_are_given_back_and_taken_again(pooled: Any) -> None:
    links: dict[str, set[int]] = {MASTER: set(), SLAVE: set()}
    for _ in range(3):
        for side, state in ((MASTER, pooled.use_master), (SLAVE, pooled.use_slave)):
            with state():
                links[side].add(link_id(pooled))
                assert sides(pooled)[-1] == side
        pooled.close()  # as Django does after each request
    assert len(links[MASTER]) == len(links[SLAVE]) == 1
    assert links[MASTER] != links[SLAVE]


def test_s7_a_link_to_a_slave_is_read_only_each_time_it_is_taken(django_pair: Pair, pooled: Any) -> None:
    ask(pooled, ADDS)
    django_pair.wait_caught_up()
    for number in (1, 2, 3):
        with pooled.use_slave():
            assert ask(pooled, "SELECT writes()") == 1
            assert pooled.route.side == MASTER
        assert bodies(django_pair) == ["new"] * number
        pooled.close()


def test_m1_a_write_is_recorded_once_each_time_a_link_is_taken(pooled: Any) -> None:
    before = ""
    for number in (1, 2, 3):
        with resume(""), pooled.use_master():
            Message.objects.using(pooled.alias).create(body=str(number))
            token = carry()
        pooled.close()
        assert '"postgresql:' in token
        assert token != before
        with resume(""), pooled.use_master():
            assert count(pooled) == number
            assert '"postgresql:' not in carry(), "a read has recorded the write of an earlier request"
        pooled.close()
        before = token


def test_m2_a_visitor_sees_their_own_write_while_the_slave_lags(django_pair: Pair, pooled: Any) -> None:
    django_pair.stop_slave()
    with resume(""), pooled.use_master():
        Message.objects.using(pooled.alias).create(body="1")
        token = carry()
    pooled.close()
    with resume(token), pooled.use_slave():
        assert count(pooled) == 1
        assert sides(pooled)[-1] == MASTER
    pooled.close()
    with resume(""), pooled.use_slave():
        assert count(pooled) == 0
        assert sides(pooled)[-1] == SLAVE


@pytest.mark.parametrize("server", [MASTER, SLAVE])
def test_f1_a_link_that_died_in_its_pool_is_replaced(django_pair: Pair, pooled: Any, server: str) -> None:
    state = pooled.use_master if server == MASTER else pooled.use_slave
    with state():
        before = link_id(pooled)
    pooled.close()
    kill(django_pair, server, before)
    with state():
        assert link_id(pooled) != before
        assert sides(pooled)[-1] == server


@override_settings(REPLSWITCH={"DOWNTIME": 0})
def test_f1_no_read_fails_while_a_slave_is_dead_and_it_serves_again_afterwards(django_pair: Pair, make: Any) -> None:
    db = make(OPTIONS={"pool": True, "connect_timeout": 1})
    try:
        with db.use_slave():
            assert count(db) == 0
        db.close()
        django_pair.kill("slave")
        for _ in range(2):
            with db.use_slave():
                assert count(db) == 0
                assert sides(db)[-1] == MASTER
            db.close()
        django_pair.start("slave")

        def slave_serves() -> bool:
            with db.use_slave():
                assert count(db) == 0
            db.close()
            return sides(db)[-1] == SLAVE

        eventually(slave_serves)
    finally:
        db.close()
        db.close_pool()
