"""The master's position for a write of another thread is queried on a connection that is there (M1)."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError
from tests.ended_links import kill
from tests.test_django.backend.asking import ask, link_id
from tests.test_django.project.dialect import Pair

from replswitch.decorators import use_master
from replswitch.drivers import Written
from replswitch.positions import Position


def test_m1_the_position_of_the_master_is_queried_although_the_server_has_closed_its_link(
    db: Any, django_pair: Pair
) -> None:
    with use_master():
        kill(django_pair, "master", link_id(db))
        assert isinstance(db.locate(), Position)


def test_f3_a_master_that_cannot_be_reached_is_not_asked_for_a_position_at_the_end_of_a_request(
    db: Any, django_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = type(db.driver).open

    def count(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(type(db.driver), "open", count)
    with db.use_master() as frame:
        link_id(db)
        django_pair.kill("master")
        for _ in range(2):
            with pytest.raises(DatabaseError):
                ask(db, "SELECT 1")
        opened.clear()
        frame.scope.settle()
        assert frame.scope.wrote.written_at is not None
    assert opened == []


def test_no_connection_is_opened_for_a_position_that_the_driver_cannot_query(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.close()
    monkeypatch.setattr(type(db.driver), "has_latest_position", False)
    monkeypatch.setattr(type(db.driver), "open", None)
    assert db.locate() is Written.YES
