"""A write in slave state runs on the master, with one warning that names the place (S8)."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F
from django.test import override_settings
from tests.test_django.backend.asking import bodies, default_with, on, rolled_back, savepoint, seen, sides
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message, Place, Reply, Restaurant, Tag

from django_replswitch.decorators import use_slave
from replswitch import MASTER, SLAVE, SlaveWriteError
from replswitch.decorators import use_master

Warnings = Callable[[], list[str]]
Write = Callable[[Message], None]


def rows(pair: Pair) -> list[int]:
    """How many rows the master has of messages, replies, tags, links between messages and tags, and restaurants."""
    tables = ("message", "reply", "tag", "message_tags", "restaurant")
    return [on(pair, "master", f"SELECT COUNT(*) FROM project_{table}") for table in tables]


@pytest.fixture
def message(django_pair: Pair, db: Any) -> Message:
    """A message, which both servers have, with a reply and the tag "one"; and the tag "two"."""
    message = Message.objects.create(body="old")
    Reply.objects.create(message=message, body="reply")
    message.tags.add(Tag.objects.create(pk=1, name="one"))
    Tag.objects.create(pk=2, name="two")
    ContentType.objects.get_for_model(Message)  # Django keeps it: else the first delete() of a process would read it
    django_pair.wait_caught_up()
    return message


# The rows of messages, replies, tags, links and restaurants after each write; and whether it reads before.


def save(message: Message) -> None:
    message.body = "new"
    message.save()


def save_some_fields(message: Message) -> None:
    message.body = "new"
    message.save(update_fields=["body"])


def save_a_new_one(message: Message) -> None:
    Message(body="new").save()


def save_with_a_key(message: Message) -> None:
    Message(pk=message.pk + 1, body="new").save()


def save_a_row_in_two_tables(message: Message) -> None:
    restaurant = Restaurant(name="Zum Lamm", stars=1)
    restaurant.save()
    assert Restaurant.objects.get().pk == Place.objects.get().pk


def create(message: Message) -> None:
    assert Message.objects.create(body="new").pk > message.pk


def get_or_create(message: Message) -> None:
    assert Message.objects.get_or_create(body="new")[1]


def update_or_create(message: Message) -> None:
    assert not Message.objects.update_or_create(pk=message.pk, defaults={"body": "new"})[1]


def update_or_create_a_new_one(message: Message) -> None:
    assert Message.objects.update_or_create(body="new")[1]


def bulk_create(message: Message) -> None:
    Message.objects.bulk_create([Message(body="new"), Message(body="newer")])


def bulk_update(message: Message) -> None:
    message.body = "new"
    Message.objects.bulk_update([message], ["body"])


def update(message: Message) -> None:
    assert Message.objects.update(body=F("id")) == 1


def delete(message: Message) -> None:
    message.delete()


def delete_all(message: Message) -> None:
    Message.objects.all().delete()


def delete_without_cascade(message: Message) -> None:
    Reply.objects.all().delete()


def add_to_many(message: Message) -> None:
    message.tags.add(2)


def clear_many(message: Message) -> None:
    message.tags.clear()


def add_to_one(message: Message) -> None:
    message.reply_set.create(body="another")


def raw_insert(message: Message) -> None:
    with transaction.get_connection().cursor() as cursor:
        cursor.execute("INSERT INTO project_message (body) VALUES (%s)", ["new"])
        assert cursor.rowcount == 1
        assert dialect.IS_POSTGRESQL or cursor.lastrowid > message.pk


def raw_executemany(message: Message) -> None:
    with transaction.get_connection().cursor() as cursor:
        cursor.executemany("INSERT INTO project_message (body) VALUES (%s)", [["new"], ["newer"]])


def in_a_block(message: Message) -> None:
    with transaction.atomic(), transaction.atomic():
        Message.objects.create(body="new")
        assert Message.objects.count() == 2


def locked(message: Message) -> None:
    with transaction.atomic():
        assert Message.objects.select_for_update().get() == message


WRITES = [
    (save, [1, 1, 2, 1, 0], False),
    (save_some_fields, [1, 1, 2, 1, 0], False),
    (save_a_new_one, [2, 1, 2, 1, 0], False),
    (save_with_a_key, [2, 1, 2, 1, 0], False),
    (save_a_row_in_two_tables, [1, 1, 2, 1, 1], False),
    (create, [2, 1, 2, 1, 0], False),
    (get_or_create, [2, 1, 2, 1, 0], True),
    (update_or_create, [1, 1, 2, 1, 0], False),
    (update_or_create_a_new_one, [2, 1, 2, 1, 0], False),
    (bulk_create, [3, 1, 2, 1, 0], False),
    (bulk_update, [1, 1, 2, 1, 0], False),
    (update, [1, 1, 2, 1, 0], False),
    (delete, [0, 0, 2, 0, 0], False),
    (delete_all, [0, 0, 2, 0, 0], True),
    (delete_without_cascade, [1, 0, 2, 1, 0], False),
    (add_to_many, [1, 1, 2, 2, 0], False),
    (clear_many, [1, 1, 2, 0, 0], False),
    (add_to_one, [1, 2, 2, 1, 0], False),
    (raw_insert, [2, 1, 2, 1, 0], False),
    (raw_executemany, [3, 1, 2, 1, 0], False),
    (in_a_block, [2, 1, 2, 1, 0], False),
    (locked, [1, 1, 2, 1, 0], False),
]


every_write = pytest.mark.parametrize(
    ("write", "left", "reads"), [pytest.param(*each, id=each[0].__name__) for each in WRITES]
)


@every_write
def test_s8_a_write_in_slave_state_runs_on_the_master(
    django_pair: Pair, db: Any, message: Message, write: Write, left: list[int], reads: bool
) -> None:
    with use_slave(), db.use_slave() as frame:
        write(message)
        assert frame.scope.all_written() is not None or write is locked
        seen()
        assert sides(db)[-1] == MASTER  # until the scope ends
    assert rows(django_pair) == left
    with use_slave():
        seen()
        assert sides(db)[-1] == SLAVE


@every_write
def test_s8_a_moved_write_gives_one_warning_that_names_the_line_of_the_application(
    db: Any, message: Message, warnings: Warnings, write: Write, left: list[int], reads: bool
) -> None:
    with use_slave():
        write(message)
    (warning,) = warnings()
    assert ("had read from a slave" if reads else "had not read from a slave") in warning
    place = warning.partition("The write is at ")[2].partition(". It was refused")[0]
    where, _, function = place.partition(" in ")
    path, _, line = where.rpartition(":")
    assert Path(path) == Path(__file__)
    assert function == write.__name__
    source, first = inspect.getsourcelines(write)
    assert first < int(line) < first + len(source)


@every_write
def test_s10_without_slaves_a_write_in_slave_state_moves_to_the_master(
    django_pair: Pair, message: Message, warnings: Warnings, write: Write, left: list[int], reads: bool
) -> None:
    with default_with() as db, use_slave():  # S10: the link refuses, not the server
        seen()
        assert sides(db)[-1] == SLAVE
        write(message)
        assert sides(db)[-1] == MASTER
    assert rows(django_pair) == left
    (warning,) = warnings()
    assert dialect.REFUSED in warning


class TestWarning:
    def test_s8_a_write_as_first_statement_of_a_connection_gives_the_warning(
        self, django_pair: Pair, make: Any, warnings: Warnings
    ) -> None:
        db = make()
        with db.use_slave():
            Message.objects.using(db.alias).create(body="new")
        (warning,) = warnings()
        assert "had not read from a slave" in warning

    def test_s8_the_warning_says_whether_the_scope_had_read(self, db: Any, warnings: Warnings) -> None:
        with db.use_slave():
            seen()
            Message.objects.create(body="new")
        with db.use_slave():
            Message.objects.create(body="new")
        first, second = warnings()
        assert "had read from a slave" in first
        assert "had not read from a slave" in second

    def test_s8_the_warning_is_logged_once_a_scope(self, db: Any, warnings: Warnings) -> None:
        with db.use_slave():
            for _ in range(3):
                Message.objects.create(body="new")
            with db.use_slave():
                Message.objects.create(body="new")
            seen()
        assert len(warnings()) == 1

    def test_s8_an_error_of_the_application_gives_no_warning(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        Tag.objects.create(name="one")
        with db.use_slave(), pytest.raises(IntegrityError):
            Tag.objects.create(name="one")
        with db.use_slave(), pytest.raises(DatabaseError), db.cursor() as cursor:
            cursor.execute("INSERT INTO project_message (body) VALUES (NULL)")
        assert len(warnings()) == 2  # both were writes
        with db.use_slave(), pytest.raises(DatabaseError), db.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        assert len(warnings()) == 2
        assert sides(db)[-1] == MASTER  # where the table might be, before a migration has arrived

    def test_s8_after_a_moved_write_that_fails_the_master_serves_the_scope(self, db: Any) -> None:
        Tag.objects.create(name="one")
        with db.use_slave():
            with pytest.raises(IntegrityError):
                Tag.objects.create(name="one")
            seen()
            assert sides(db)[-1] == MASTER

    def test_s8_a_moved_write_leaves_other_aliases_on_their_slaves(self, django_pair: Pair, db: Any, make: Any) -> None:
        other = make()
        with use_slave():
            Message.objects.create(body="new")
            django_pair.wait_caught_up()  # both aliases are of one set, so the slave must have the write
            Message.objects.using(other.alias).count()
        assert sides(other)[-1] == SLAVE


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync_to_async", "acreate"])
def test_s8_the_warning_of_a_write_in_an_asynchronous_view_names_the_view(
    db: Any, warnings: Warnings, asynchronous: bool
) -> None:
    """Django runs its asynchronous methods in another thread."""

    async def view() -> None:
        with use_slave():
            if asynchronous:
                await Message.objects.acreate(body="new")
            else:
                await sync_to_async(Message.objects.create)(body="new")

    async_to_sync(view)()
    assert f"at {__file__}:" in warnings()[0]
    assert " in view." in warnings()[0]


def test_s7_a_statement_that_would_make_its_link_writable_runs_on_the_master(django_pair: Pair) -> None:
    with default_with() as db, use_slave():
        for statement in ("SET SESSION TRANSACTION READ WRITE", "START TRANSACTION READ WRITE"):
            with db.cursor() as cursor:
                cursor.execute(statement)
            assert db.queries[-1]["db"] == MASTER
        Message.objects.create(body="new")
        assert db.queries[-1]["db"] == MASTER
        with db.cursor() as cursor:
            cursor.execute("COMMIT")
    assert bodies(django_pair) == ["new"]


class TestAfterARead:
    """A block that has read from the slave cannot continue with a write."""

    def test_s8_a_many_to_many_set_after_a_read_raises_an_error_that_says_what_to_do(
        self, django_pair: Pair, db: Any, message: Message, warnings: Warnings
    ) -> None:
        two = Tag.objects.get(name="two")
        with db.use_slave():
            with pytest.raises(SlaveWriteError, match=r"has read from the slave.*use_master\(\) before") as caught:
                message.tags.set([two])
            assert [tag.name for tag in message.tags.all()] == ["one"]
        assert Path(caught.value.place.partition(":")[0]) == Path(__file__)
        assert caught.value.place.endswith(f" in {inspect.stack()[0].function}")
        assert caught.value.server == f"127.0.0.1:{django_pair.slaves[0]['port']}"
        assert caught.value.__cause__ is not None
        assert rows(django_pair) == [1, 1, 2, 1, 0]
        assert warnings() == []

    def test_s8_with_use_master_a_many_to_many_set_works(self, db: Any, message: Message) -> None:
        two = Tag.objects.get(name="two")
        with db.use_slave(), use_master():
            message.tags.set([two])
        assert [tag.name for tag in message.tags.all()] == ["two"]

    def test_s8_a_write_refused_after_a_read_rolls_back_its_whole_block(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), pytest.raises(SlaveWriteError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            seen()
            with transaction.atomic():
                Message.objects.create(body="new")
        assert bodies(django_pair) == []
        with use_slave():
            assert seen() == []
            assert sides(db)[-1] == SLAVE

    def test_s8_a_block_that_catches_slave_write_error_can_continue(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), transaction.atomic():
            seen()
            with pytest.raises(SlaveWriteError), transaction.atomic():
                Message.objects.create(body="never")
            assert seen() == []
            with use_master():
                Message.objects.create(body="new")
        assert bodies(django_pair) == ["new"]

    def test_s8_a_read_in_an_earlier_block_does_not_keep_a_write_from_moving(self, django_pair: Pair, db: Any) -> None:
        with use_slave():
            with transaction.atomic():
                seen()
            with transaction.atomic():
                Message.objects.create(body="new")
        assert bodies(django_pair) == ["new"]

    def test_s8_a_read_on_the_master_does_not_keep_a_write_from_moving(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), transaction.atomic():
            with use_master():
                seen()
            Message.objects.create(body="new")
        assert bodies(django_pair) == ["new"]

    def test_s8_a_write_after_a_read_of_a_manual_transaction_raises(self, django_pair: Pair, db: Any) -> None:
        transaction.set_autocommit(False)
        with use_slave():
            seen()
            with pytest.raises(SlaveWriteError):
                Message.objects.create(body="new")
            transaction.rollback()
            Message.objects.create(body="newer")
            transaction.commit()
        transaction.set_autocommit(True)
        assert bodies(django_pair) == ["newer"]


class TestRefused:
    """ON_SLAVE_WRITE = "error"."""

    @override_settings(REPLSWITCH={"ON_SLAVE_WRITE": "error"})
    def test_s8_with_on_slave_write_error_a_write_raises_and_writes_nothing(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        with db.use_slave():
            with pytest.raises(SlaveWriteError, match='on_slave_write is "error"') as caught:
                Message.objects.create(body="new")
            with pytest.raises(SlaveWriteError), transaction.atomic():
                Message.objects.create(body="new")
            seen()
            assert sides(db)[-1] == SLAVE
        assert __file__ in caught.value.place
        assert (bodies(django_pair), warnings()) == ([], [])
        Message.objects.create(body="new")
        assert bodies(django_pair) == ["new"]


def test_s8_a_transaction_that_has_read_nothing_moves_as_a_whole(django_pair: Pair, db: Any) -> None:
    with db.use_slave(), transaction.atomic(), db.cursor() as cursor:
        cursor.execute("SAVEPOINT mine")
        outer = savepoint()
        cursor.execute("INSERT INTO project_message (body) VALUES ('a')")
        transaction.savepoint_commit(outer)
        cursor.execute("INSERT INTO project_message (body) VALUES ('b')")
    assert bodies(django_pair) == ["a", "b"]


@pytest.mark.parametrize("block", [nullcontext, transaction.atomic], ids=["in autocommit mode", "in atomic()"])
def test_s8_a_write_after_a_change_of_the_slave_s_session_raises(
    django_pair: Pair, db: Any, block: Callable[[], AbstractContextManager[None]]
) -> None:
    with (  # noqa: PT012 - the whole block is what raises
        db.use_slave(),
        pytest.raises(SlaveWriteError, match="changed the session"),
        block(),
        db.cursor() as cursor,
    ):
        cursor.execute(dialect.translated("SET @who = 7"))
        cursor.execute(dialect.translated("INSERT INTO project_message (body) VALUES (@who)"))
    assert bodies(django_pair) == []


def test_s8_slave_write_error_is_a_database_error_of_django_that_survives_pickling(db: Any) -> None:
    with use_slave(), transaction.atomic():
        seen()
        with pytest.raises(DatabaseError) as caught, transaction.atomic():
            Message.objects.create(body="never")
    assert isinstance(caught.value, SlaveWriteError)
    for same in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (type(same), str(same)) == (type(caught.value), str(caught.value))
        assert (same.server, same.place) == (caught.value.server, caught.value.place)


@override_settings(REPLSWITCH={"ON_SLAVE_WRITE": "force"})
def test_s8_on_slave_write_force_moves_a_write_after_a_read(django_pair: Pair, db: Any, warnings: Warnings) -> None:
    with use_slave(), transaction.atomic():
        seen()
        Message.objects.create(body="new")
    assert bodies(django_pair) == ["new"]
    assert len(warnings()) == 1


@dialect.only_mariadb
class TestWritesAfterRows:
    """A procedure that returns rows, and writes after them."""

    @pytest.fixture(autouse=True)
    def procedure(self, django_pair: Pair) -> None:
        with django_pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute(
                "CREATE OR REPLACE PROCEDURE shop.late() BEGIN SELECT 7;"
                " INSERT INTO shop.project_message (body) VALUES ('late'); END"
            )
        django_pair.wait_caught_up()

    def test_s8_a_late_refusal_is_raised_when_its_cursor_is_closed(self, django_pair: Pair, db: Any) -> None:
        with (  # noqa: PT012 - the whole block is what raises
            use_slave(),
            pytest.raises(SlaveWriteError, match="has already returned rows"),
            db.cursor() as cursor,
        ):
            cursor.execute("CALL late()")
            assert cursor.fetchone() == (7,)
        assert bodies(django_pair) == []

    def test_s8_a_late_refusal_is_raised_before_the_next_statement_of_its_cursor(
        self, django_pair: Pair, db: Any
    ) -> None:
        with (  # noqa: PT012 - likewise
            use_slave(),
            pytest.raises(SlaveWriteError, match="has already returned rows"),
            db.cursor() as cursor,
        ):
            cursor.execute("CALL late()")
            cursor.execute("SELECT 1")
        assert bodies(django_pair) == []

    @pytest.mark.parametrize("again", [True, False], ids=["which was used before", "which is new"])
    def test_s8_a_late_refusal_is_raised_before_a_statement_of_another_cursor(
        self, django_pair: Pair, db: Any, again: bool
    ) -> None:
        with (  # noqa: PT012 - likewise
            use_slave(),
            pytest.raises(SlaveWriteError, match="has already returned rows"),
            db.cursor() as other,
            db.cursor() as cursor,
        ):
            if again:
                other.execute("SELECT 1")
            cursor.callproc("late")
            assert cursor.fetchall() == ((7,),)
            other.execute("SELECT 5")
        assert bodies(django_pair) == []

    def test_a_late_write_on_the_master_is_carried_out(self, django_pair: Pair, db: Any) -> None:
        with db.cursor() as cursor:
            cursor.execute("CALL late()")
        assert bodies(django_pair) == ["late"]


def test_s8_a_write_after_a_read_in_a_savepoint_rolled_back_raises(django_pair: Pair, db: Any) -> None:
    Message.objects.create(body="1")
    django_pair.wait_caught_up()
    with use_slave(), pytest.raises(SlaveWriteError, match="may be stale"), transaction.atomic():  # noqa: PT012 - likewise
        with rolled_back():
            read = Message.objects.get().body
        Message.objects.update(body=read + "1")
