"""What tools such as pytest-django do with Django's connection objects before and between tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from tests.test_django.backend.asking import ask, sides
from tests.test_django.project.dialect import Pair

from django_replswitch.decorators import use_master, use_slave
from replswitch import MASTER, SLAVE


def test_settings_that_change_before_the_first_query_apply_to_all_servers(
    db: Any, django_pair: Pair, make: Callable[..., Any]
) -> None:
    pair = {name: db.settings_dict[name] for name in ("HOST", "PORT", "SLAVES")}
    made = make(HOST="master.db", PORT="", SLAVES=[{"HOST": "slave.db"}])  # as Django makes it with the models
    assert made.state == MASTER
    made.settings_dict.update(pair)
    with use_slave():
        assert ask(made, "SELECT 1") == 1
        assert made.queries[-1]["server"].endswith(f":{django_pair.slaves[0]['port']}")
        with transaction.atomic(using=made.alias):
            ask(made, "SELECT 2")
    assert sides(made)[-2:] == [SLAVE] * 2
    made.close()
    made.settings_dict.update(SLAVES=[])
    with use_slave():
        ask(made, "SELECT 3")
    assert made.queries[-1]["server"].endswith(f":{django_pair.master['port']}")


def test_a_slave_that_is_added_to_the_setting_slaves_before_the_first_query_is_used(
    db: Any, django_pair: Pair, make: Callable[..., Any]
) -> None:
    (slave,) = db.settings_dict["SLAVES"]
    made = make(SLAVES=[])
    made.settings_dict["SLAVES"].append(slave)
    with use_slave():
        ask(made, "SELECT 1")
    assert made.queries[-1]["server"].endswith(f":{django_pair.slaves[0]['port']}")
    made.close()
    del made.settings_dict["SLAVES"][0]
    with use_slave():
        ask(made, "SELECT 2")
    assert made.queries[-1]["server"].endswith(f":{django_pair.master['port']}")


@pytest.mark.parametrize("use", [use_slave, use_master])
def test_a_test_tool_can_refuse_database_access_on_an_open_connection(
    db: Any, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Database access not allowed")

    ask(db, "SELECT 1")
    with use_slave():
        ask(db, "SELECT 1")
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", refuse)
    with use(), pytest.raises(RuntimeError, match="not allowed"):
        ask(db, "SELECT 2")
    monkeypatch.undo()
    assert ask(db, "SELECT 3") == 1 + 2
    assert "SELECT 2" not in [query["sql"] for query in db.queries]


def test_a_test_tool_that_wraps_ensure_connection_changes_the_side_of_no_query(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure, calls = BaseDatabaseWrapper.ensure_connection, []

    def wrapped(connection: BaseDatabaseWrapper) -> None:
        calls.append(connection.alias)
        ensure(connection)

    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", wrapped)
    with use_slave():
        ask(db, "SELECT 1")
        ask(db, "SELECT 2")
    assert ask(db, "SELECT 3") == 1 + 2
    assert sides(db)[-3:] == [SLAVE, SLAVE, MASTER]
    assert calls.count("default") >= 3
