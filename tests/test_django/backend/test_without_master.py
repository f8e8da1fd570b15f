"""In slave state the master serves what no slave has; and then the master fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.db.backends.signals import connection_created
from tests.ended_links import kill, killed_while_it_sleeps
from tests.test_django.backend.asking import ask, bodies, link_id
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message

from replswitch import MASTER, SLAVE, NoServerError, stats

Served = tuple[str, str]


@pytest.fixture
def reading(django_pair: Pair, db: Any) -> Iterator[Any]:
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


def test_f3_a_read_on_a_lost_master_runs_again_on_a_read_only_link(django_pair: Pair, reading: Any) -> None:
    with killed_while_it_sleeps(django_pair, "master", link_id(reading)) as sleep:
        assert ask(reading, f"SELECT {sleep}, 1") == (0, 1)
    assert served(reading) == (SLAVE, address(django_pair.master))
    assert ask(reading, "SELECT body FROM project_message") == "own"


def test_f3_a_read_lost_on_the_master_runs_on_a_slave_that_has_caught_up(django_pair: Pair, reading: Any) -> None:
    django_pair.start_slave("slave")
    django_pair.wait_caught_up()
    django_pair.kill("master")
    assert ask(reading, "SELECT body FROM project_message") == "own"
    assert served(reading) == (SLAVE, address(django_pair.slaves[0]))


def test_f3_the_error_of_a_read_without_any_server_names_the_master(django_pair: Pair, reading: Any) -> None:
    django_pair.kill("master")
    for _ in range(2):
        with pytest.raises(
            NoServerError, match=f"The master {address(django_pair.master)} cannot be reached"
        ) as raised:
            ask(reading, "SELECT body FROM project_message")
        assert isinstance(raised.value, OperationalError)


def test_f1_a_write_whose_response_is_lost_does_not_run_again(django_pair: Pair, reading: Any) -> None:
    django_pair.start_slave("slave")
    django_pair.wait_caught_up()
    with reading.use_master():  # what runs here may have written, so that the master's own connection serves
        master = link_id(reading)
    with (
        killed_while_it_sleeps(django_pair, "master", master) as sleep,
        pytest.raises(NoServerError, match=r"lost during a write, at .*not known"),
    ):
        ask(reading, f"INSERT INTO project_message (body) SELECT CONCAT('slow', {sleep})")
    assert bodies(django_pair) == ["own"]


@pytest.mark.parametrize("block", [nullcontext, transaction.atomic], ids=["in autocommit mode", "in atomic()"])
def test_f3_a_write_that_a_read_only_master_has_refused_runs_once_more(django_pair: Pair, db: Any, block: Any) -> None:
    """Over a new connection, because another server may have the name by now."""

    def set_read_only(value: str) -> None:
        dialect.set_read_only(django_pair, value)

    def is_writable(**_: object) -> None:
        set_read_only("OFF")

    with db.use_master():
        ask(db, "SELECT 1")
        set_read_only("ON")
        connection_created.connect(is_writable)
        try:
            with block():
                Message.objects.create(body="new")
        finally:
            connection_created.disconnect(is_writable)
            is_writable()
    assert bodies(django_pair) == ["new"]


def test_f5_a_block_that_cannot_begin_on_the_master_begins_again(
    django_pair: Pair, persistent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, begun = persistent, []
    begin_on = type(db).begin_on

    def begin_on_a_dead_one(self: Any, link: Any) -> None:
        begun.append(link)
        if len(begun) == 1:
            kill(django_pair, "master", dialect.number_of(link.raw))
        begin_on(self, link)

    before = sum(stats()["master-lost"].values())
    monkeypatch.setattr(type(db), "begin_on", begin_on_a_dead_one)
    with transaction.atomic():
        Message.objects.create(body="new")
    assert bodies(django_pair) == ["new"]
    assert len(begun) == 2
    assert sum(stats()["master-lost"].values()) == before + 1


@pytest.mark.parametrize("block", [nullcontext, transaction.atomic], ids=["in autocommit mode", "in atomic()"])
def test_f5_a_read_only_master_is_logged_once_until_it_serves_again(
    django_pair: Pair, db: Any, block: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dialect.set_read_only(django_pair, "ON")
    try:
        for _ in range(5):
            with db.use_master(), pytest.raises(NoServerError, match="is read-only"), block():
                Message.objects.create(body="refused")
    finally:
        dialect.set_read_only(django_pair, "OFF")
    with db.use_master():
        with block():
            Message.objects.create(body="new")
        with db.use_slave():
            Message.objects.count()  # mysqlclient asks now what was written
    records = [record for record in caplog.records if hasattr(record, "replswitch")]
    assert [record.replswitch["event"] for record in records] == ["master-lost", "master-back"]
