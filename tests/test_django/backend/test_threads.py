"""Each thread has links, transactions and a log of its own; the state of an alias is the running code's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from tests.test_django.backend.asking import bodies, link_id, seen, sides
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message

from django_replswitch.decorators import use_slave
from replswitch import MASTER, SLAVE


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    def run(number: int) -> Any:
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_each_thread_has_its_own_links(django_pair: Pair, db: Any) -> None:
    together = threading.Barrier(6)

    def work(number: int) -> tuple[str, int]:
        mine: Any = connections["default"]
        mine.force_debug_cursor = True
        with mine.use_slave() if number % 2 else mine.use_master():
            together.wait(10)
            link = link_id(mine)
            together.wait(10)
            return sides(mine)[-1], link

    found = in_threads(work, 6)
    assert [side for side, _ in found] == [MASTER, SLAVE] * 3
    assert len({(side, link) for side, link in found}) == 6


def test_s3_a_thread_begins_in_master_state(db: Any) -> None:
    with use_slave(), db.use_slave():
        assert in_threads(lambda _: (connections["default"].state, seen()), 1) == [(MASTER, [])]  # type: ignore[attr-defined]


def test_state_change_disabled_holds_in_all_threads(db: Any) -> None:
    db.state_change_disabled = True

    def work(_: int) -> str:
        mine: Any = connections["default"]
        with mine.use_slave():
            return str(mine.state)

    assert in_threads(work, 2) == [MASTER, MASTER]


def test_each_thread_has_its_own_transaction(django_pair: Pair, db: Any) -> None:
    together = threading.Barrier(4)

    def work(number: int) -> list[str]:
        with transaction.atomic():
            with use_slave():
                seen()
            Message.objects.create(body=str(number))
            together.wait(10)
            with use_slave():
                own = seen()
            together.wait(10)
            transaction.set_rollback(bool(number % 2))
        return own

    assert in_threads(work, 4) == [["0"], ["1"], ["2"], ["3"]]
    assert sorted(bodies(django_pair)) == ["0", "2"]


def test_threads_that_read_and_write_see_their_own_data(django_pair: Pair, db: Any) -> None:
    def work(number: int) -> list[str]:
        mine: Any = connections["default"]
        mine.force_debug_cursor = True
        wrong = []
        for turn in range(20):
            if (number + turn) % 2:
                with mine.use_slave():
                    seen()
                    wanted = SLAVE
            else:
                with transaction.atomic():
                    Message.objects.create(body=f"{number}-{turn}")
                wanted = MASTER
            wrong += [wanted] if sides(mine)[-1] != wanted else []
        return wrong

    assert in_threads(work, 8) == [[]] * 8
    assert len(bodies(django_pair)) == 80


@pytest.mark.parametrize("state", [MASTER, SLAVE])
def test_using_a_connection_in_another_thread_is_an_error(db: Any, state: str) -> None:
    with db.use_slave() if state == SLAVE else db.use_master():
        seen()

    def work(_: int) -> None:
        with db.use_slave() if state == SLAVE else db.use_master():
            for wrong in (db.cursor, db.close, db.commit, db.rollback):
                with pytest.raises(DatabaseError, match="can only be used in that same thread"):
                    wrong()

    in_threads(work, 1)
    assert seen() == []


def test_a_connection_with_thread_sharing_works_in_another_thread(db: Any) -> None:
    db.inc_thread_sharing()
    try:
        with db.use_slave():
            slave = link_id(db)

        def work(_: int) -> tuple[int, str]:
            with db.use_slave():
                return link_id(db), sides(db)[-1]

        assert in_threads(work, 1) == [(slave, SLAVE)]
    finally:
        db.dec_thread_sharing()
