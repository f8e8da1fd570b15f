"""Which statements are recorded as writes (M1).

PyMySQL shows what the server says of each commit. mysqlclient does not: there the server is asked, once and in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, IntegrityError, connections, transaction
from tests.ended_links import kill, killed_while_it_sleeps
from tests.partial_commits import OF_POSTGRESQL, STATEMENTS, commits, has_committed, prepare
from tests.test_django.backend.asking import ask, link_id, on, savepoint, seen, sides
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message, Place, Restaurant, Tag

from django_replswitch.decorators import use_slave
from replswitch import SLAVE, unrecorded
from replswitch.decorators import use_master


def in_a_block() -> None:
    with transaction.atomic():
        Message.objects.create(body="new")


def in_a_block_in_slave_state() -> None:
    with use_slave(), transaction.atomic():
        Message.objects.create(body="new")


def by_hand() -> None:
    transaction.set_autocommit(False)
    Message.objects.create(body="new")
    transaction.commit()
    transaction.set_autocommit(True)


def raw() -> None:
    ask(connections["default"], "INSERT INTO project_message (body) VALUES ('new')")


def raw_that_returns_rows() -> None:
    ask(connections["default"], "INSERT INTO project_message (body) VALUES ('new') RETURNING id")


WRITES: dict[str, Callable[[], object]] = {
    "create": lambda: Message.objects.create(body="new"),  # INSERT … RETURNING
    "bulk_create": lambda: Message.objects.bulk_create([Message(body="a"), Message(body="b")]),
    "get_or_create": lambda: Message.objects.get_or_create(body="new"),
    "a row in two tables": lambda: Restaurant.objects.create(name="new"),
    "update": lambda: Message.objects.update(body="new"),
    "delete": lambda: Message.objects.all().delete(),
    "in a block": in_a_block,
    "in a block in slave state": in_a_block_in_slave_state,
    "in a manual transaction": by_hand,
    "raw SQL": raw,
    "raw that returns rows": raw_that_returns_rows,
    "ANALYZE TABLE": lambda: ask(connections["default"], "ANALYZE TABLE project_tag"),
}


def rolled_back() -> None:
    with transaction.atomic():
        Message.objects.create(body="new")
        transaction.set_rollback(True)


def rolled_back_by_hand() -> None:
    transaction.set_autocommit(False)
    Message.objects.create(body="new")
    transaction.rollback()
    transaction.set_autocommit(True)


def to_a_savepoint() -> None:
    with transaction.atomic():
        Message.objects.exists()
        sid = savepoint()
        Message.objects.create(body="new")
        transaction.savepoint_rollback(sid)


NO_WRITES: dict[str, Callable[[], object]] = {
    "a read": seen,
    "an update of nothing": lambda: Message.objects.filter(pk=0).update(body="x"),
    "a delete of nothing": lambda: Message.objects.filter(pk=0).delete(),
    "a read in a block": transaction.atomic(seen),
    "get_or_create that gets": lambda: Message.objects.get_or_create(body="old"),
    "rolled back": rolled_back,
    "rolled back in a manual transaction": rolled_back_by_hand,
    "a read from the slave": use_slave(seen),
    "a block on the slave": use_slave(transaction.atomic(seen)),
    "an empty block": transaction.atomic(lambda: None),
    "autocommit off and on": lambda: [transaction.set_autocommit(mode) for mode in (False, True)],
}

if not dialect.IS_POSTGRESQL:  # it counts both as writes
    NO_WRITES["an update to the same"] = lambda: Message.objects.update(body="old")
    NO_WRITES["rolled back to a savepoint"] = to_a_savepoint


@pytest.fixture(autouse=True)
def message(django_pair: Pair, db: Any) -> Message:
    """A message that both servers have."""
    message = Message.objects.create(body="old")
    django_pair.wait_caught_up()
    return message


@pytest.mark.parametrize("name", WRITES)
def test_m1_a_write_is_recorded(django_pair: Pair, db: Any, name: str) -> None:
    django_pair.stop_slave()
    with use_master(), db.use_master() as frame:
        before = time.time()
        WRITES[name]()
        wrote = frame.scope.all_written()
        assert wrote is not None
        assert wrote.placed_at is not None
        assert before <= wrote.placed_at <= time.time()
        assert (list(wrote.positions), wrote.written_at) == ([db.route.database.set_name], None)
        with db.use_slave():
            seen()
        assert sides(db)[-1] != SLAVE


def warm(db: Any) -> None:
    """Let mysqlclient's link learn the position of writes outside any scope, where it is not queried."""
    with db.use_master() as frame:
        seen()
        frame.scope.settle()


@pytest.mark.parametrize("name", NO_WRITES)
def test_m1_a_statement_that_writes_nothing_is_not_recorded(db: Any, name: str) -> None:
    warm(db)
    with db.use_master() as frame:
        NO_WRITES[name]()
        assert frame.scope.all_written() is None


def test_m1_a_write_in_a_block_is_recorded_at_the_commit(db: Any) -> None:
    with db.use_master() as frame, transaction.atomic():
        with transaction.atomic():
            Message.objects.create(body="new")
        assert frame.scope.all_written() is None
        transaction.on_commit(lambda: told.append(frame.scope.all_written()))
        told: list[Any] = []
    assert told == [frame.scope.all_written()]
    assert told != [None]


def test_m1_a_commit_of_an_outer_block_is_recorded_in_the_outer_scope(db: Any) -> None:
    with transaction.atomic():
        with db.use_master() as frame:
            Message.objects.create(body="new")
        assert frame.scope.all_written() is None


def test_m1_a_write_that_failed_is_not_recorded(db: Any) -> None:
    Tag.objects.create(name="one")
    warm(db)
    with db.use_master() as frame:
        with pytest.raises(IntegrityError):
            Tag.objects.create(name="one")
        assert frame.scope.all_written() is None


@pytest.mark.parametrize("is_atomic", [False, True], ids=["in autocommit", "in a block"])
@pytest.mark.parametrize(
    "name",
    OF_POSTGRESQL
    if dialect.IS_POSTGRESQL
    else ["procedure with COMMIT", "CREATE TABLE after a write", "compound statement with COMMIT"],
)
def test_m1_what_a_statement_has_committed_before_its_error_is_recorded(
    django_pair: Pair, db: Any, name: str, is_atomic: bool
) -> None:
    prepare(django_pair)
    warm(db)
    *before, last = STATEMENTS[name]
    with db.use_master() as frame:
        with transaction.atomic() if is_atomic else nullcontext(), db.cursor() as cursor:
            for sql in before:
                cursor.execute(sql)
            with pytest.raises(DatabaseError):
                cursor.execute(last)
            if is_atomic:
                transaction.set_rollback(True)
        db.close()  # which ends a transaction that the statements have begun
        is_known = commits(django_pair, name, in_transaction=is_atomic)
        assert (has_committed(django_pair), frame.scope.all_written() is not None) == (is_known, is_known)


def test_m1_a_write_without_a_response_is_recorded(django_pair: Pair, db: Any) -> None:
    """The outcome of the write is unknown."""
    with db.use_master() as frame:
        with killed_while_it_sleeps(django_pair, "master", link_id(db)) as sleep, pytest.raises(DatabaseError):
            ask(db, f"INSERT INTO project_message (body) SELECT {sleep}")
        assert frame.scope.all_written() is not None


def test_m1_a_commit_without_a_response_is_recorded(django_pair: Pair, db: Any) -> None:
    with db.use_master() as frame:
        with pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            Message.objects.create(body="new")
            kill(django_pair, "master", link_id(db))
        assert frame.scope.all_written() is not None


def test_m1_opening_a_link_is_not_recorded(django_pair: Pair, db: Any, make: Any) -> None:
    fresh = make()
    with db.use_master() as frame:
        fresh.ensure_connection()
        assert frame.scope.all_written() is None


def test_m1_a_write_is_not_recorded_in_the_next_scope(db: Any) -> None:
    with db.use_master():
        Message.objects.create(body="new")
    with db.use_slave() as frame:
        seen()
        assert frame.scope.all_written() is None
    assert sides(db)[-1] == SLAVE


class TestUnrecorded:
    def test_m1_a_write_in_an_unrecorded_block_makes_no_marker(self, django_pair: Pair, db: Any) -> None:
        with db.use_master() as frame:
            with unrecorded():
                Message.objects.create(body="new")
                with transaction.atomic():
                    Place.objects.create(name="new")
            assert frame.scope.all_written() is None
            with db.use_slave():
                seen()
            assert sides(db)[-1] == SLAVE
        assert on(django_pair, "master", "SELECT COUNT(*) FROM project_message") == 2

    def test_m1_a_write_after_an_unrecorded_one_is_recorded(self, db: Any) -> None:
        with db.use_master() as frame:
            with unrecorded():
                Message.objects.create(body="new")
            Message.objects.create(body="newer")
            assert frame.scope.all_written() is not None

    def test_m1_a_write_before_an_unrecorded_one_is_recorded(self, db: Any) -> None:
        with db.use_master() as frame:
            Message.objects.create(body="new")
            with unrecorded():
                Message.objects.create(body="newer")
            assert frame.scope.all_written() is not None

    def test_m1_a_write_of_the_session_engine_is_not_recorded(self, django_pair: Pair, db: Any) -> None:
        store = import_module(settings.SESSION_ENGINE).SessionStore
        with use_slave(), db.use_slave() as frame:
            session = store()
            session["cart"] = [1]
            session.save()
            assert store(session.session_key)["cart"] == [1]
            session.cycle_key()
            session.flush()
            assert frame.scope.all_written() is None
            seen()
            assert sides(db)[-1] == SLAVE
        assert on(django_pair, "master", "SELECT COUNT(*) FROM django_session") == 0


class TestErrors:
    """The cursor is the driver's own, and its errors are those of Django's."""

    def test_a_failed_check_constraint_is_an_integrity_error(self, db: Any) -> None:
        ask(db, "CREATE TEMPORARY TABLE checked (number INTEGER CHECK (number > 0))")
        with pytest.raises(IntegrityError, match="checked"):
            ask(db, "INSERT INTO checked VALUES (0)")
