"""Statements through Django are counted by alias, side, server and reason."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from tests.test_django.backend.asking import ask
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message

from replswitch import stats


def counted(alias: str) -> dict[tuple[str, ...], int]:
    return {labels[1:]: number for labels, number in stats()["statements"].items() if labels[0] == alias}


def test_statements_are_counted_by_alias_side_server_and_reason(django_pair: Pair, db: Any) -> None:
    before = counted("default")
    with db.use_slave():
        ask(db, "SELECT COUNT(*) FROM project_message")
        list(Message.objects.all())
        Message.objects.create(body="moved")
    with transaction.atomic():
        list(Message.objects.all())
    found = {labels: number - before.get(labels, 0) for labels, number in counted("default").items()}
    master, slave = (f"127.0.0.1:{each['port']}" for each in (django_pair.master, django_pair.slaves[0]))
    assert {labels: number for labels, number in found.items() if number} == {
        ("slave", slave, "use_slave"): 2,
        ("master", master, "moved-write"): 1,
        ("master", master, "default"): 1,
    }
