"""One block, one outcome (S5): links join with their first statement, and end together."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from tests.ended_links import kill
from tests.test_django.backend.asking import (
    FailedError,
    ask,
    bodies,
    has_no_links,
    link_id,
    on,
    rolled_back,
    savepoint,
    seen,
    sides,
)
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message, Tag

from replswitch import MASTER, SLAVE
from replswitch.decorators import use_master, use_slave


def create(body: str) -> Message:
    return Message.objects.create(body=body)


class TestAtomic:
    def test_a_block_in_slave_state_does_not_touch_the_master(self, django_pair: Pair, db: Any) -> None:
        with (
            django_pair.statements("master") as to_master,
            django_pair.statements("slave") as to_slave,
            use_slave(),
            transaction.atomic(),
        ):
            assert seen() == []
            with transaction.atomic():
                assert seen() == []
        assert to_master == []
        assert has_no_links(django_pair, "master")
        selects = [sql for sql in to_slave if sql.startswith(dialect.translated("SELECT `project_message`"))]
        assert len(selects) == 2
        assert "COMMIT" in [sql.upper() for sql in to_slave[-2:]]

    def test_s5_a_block_switched_to_the_master_first_opens_no_slave_transaction(
        self, django_pair: Pair, db: Any
    ) -> None:
        with django_pair.statements("slave") as to_slave, use_slave(), transaction.atomic():
            with use_master():
                create("a")
            assert seen() == ["a"]
            with transaction.atomic():
                assert seen() == ["a"]
        assert to_slave == []
        assert has_no_links(django_pair, "slave")
        assert bodies(django_pair) == ["a"]

    def test_a_block_without_a_statement_opens_no_link(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic(), transaction.atomic():
            pass
        with rolled_back(), use_slave(), transaction.atomic():
            pass
        assert has_no_links(django_pair, "master", "slave")

    def test_s5_the_master_serves_the_rest_of_the_block_after_its_master_link_has_joined(
        self, django_pair: Pair, db: Any
    ) -> None:
        with transaction.atomic():
            with db.use_slave():
                assert seen() == []
            create("a")
            with db.use_slave():
                assert seen() == ["a"]
        assert sides(db) == [SLAVE, MASTER, MASTER]
        assert bodies(django_pair) == ["a"]

    def test_s5_an_exception_rolls_back_every_link_of_the_block(self, django_pair: Pair, db: Any) -> None:
        @use_master
        def view() -> None:
            create("a")
            with db.use_slave():
                create("b")
            raise FailedError

        with pytest.raises(FailedError), use_slave(), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            assert seen() == []
            view()
        assert bodies(django_pair) == []
        with use_slave():
            assert seen() == []
        assert sides(db)[-1] == SLAVE

    def test_s5_blocks_one_after_another_are_separate(self, django_pair: Pair, db: Any) -> None:
        for number in range(3):
            with transaction.atomic(), db.use_slave():
                ask(db, "SELECT 1")
            with transaction.atomic():
                create(str(number))
            with rolled_back():
                create("never")
        assert bodies(django_pair) == ["0", "1", "2"]
        for state in (db.use_slave, db.use_master):
            with state():
                assert ask(db, "SELECT @@autocommit, @@in_transaction") == (1, 0)

    def test_s5_an_uncommitted_write_is_not_seen_by_other_connections(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic():
            create("a")
            assert bodies(django_pair) == []
        assert bodies(django_pair) == ["a"]

    def test_s5_blocks_of_two_aliases_are_separate(self, django_pair: Pair, db: Any) -> None:
        with rolled_back():
            create("a")
            with transaction.atomic(using="other"):
                Message.objects.using("other").create(body="b")
        assert bodies(django_pair) == []
        assert Message.objects.using("other").count() == 1

    def test_s5_a_durable_block_on_both_servers_works(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), transaction.atomic(durable=True):
            seen()
            with pytest.raises(RuntimeError, match="durable"), transaction.atomic(durable=True):
                pass
            with db.use_master():
                create("a")
        assert bodies(django_pair) == ["a"]

    def test_s5_a_database_error_breaks_the_block_for_every_link(self, db: Any) -> None:
        with transaction.atomic():
            with db.use_slave(), pytest.raises(DatabaseError), transaction.atomic():
                ask(db, "SELECT nothing FROM nowhere")
            with db.use_slave():
                assert seen() == []
            with pytest.raises(DatabaseError), transaction.atomic():
                ask(db, "SELECT nothing FROM nowhere")
            create("a")
        with rolled_back():
            Tag.objects.create(name="x")
            with pytest.raises(DatabaseError), transaction.atomic(savepoint=False):
                Tag.objects.create(name="x")
            with db.use_slave(), pytest.raises(transaction.TransactionManagementError):
                seen()
        assert seen() == ["a"]


class TestSavepoints:
    def test_a_link_that_joins_late_gets_the_open_savepoints(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic():
            with db.use_slave():
                seen()
            with pytest.raises(FailedError), transaction.atomic(), transaction.atomic():  # noqa: PT012 - the whole block is what raises
                create("a")  # the master joins below two savepoints
                raise FailedError
            assert seen() == []
            create("b")
            with transaction.atomic():
                create("c")
        assert bodies(django_pair) == ["b", "c"]

    def test_a_link_that_joins_late_does_not_get_released_savepoints(self, django_pair: Pair, db: Any) -> None:
        with django_pair.statements("master") as to_master, transaction.atomic():
            with db.use_slave():
                with transaction.atomic():
                    seen()
                with rolled_back():
                    pass
            with transaction.atomic():
                create("a")
        assert sum(sql.startswith("SAVEPOINT") for sql in to_master) == 1
        assert sum(sql.startswith("RELEASE") for sql in to_master) == 1
        assert bodies(django_pair) == ["a"]

    def test_savepoints_of_the_application_work_on_both_links(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic():
            with db.use_slave():
                seen()
            outer = savepoint()
            create("a")
            inner = savepoint()
            create("b")
            transaction.savepoint_rollback(inner)
            assert seen() == ["a"]
            create("c")
            transaction.savepoint_rollback(inner)  # a savepoint outlives its rollback
            transaction.savepoint_commit(inner)
            create("d")
            transaction.savepoint_commit(outer)
        assert bodies(django_pair) == ["a", "d"]

    def test_a_savepoint_rolled_back_before_the_master_joins_leaves_the_block_usable(
        self, django_pair: Pair, db: Any
    ) -> None:
        with transaction.atomic():
            outer = savepoint()
            inner = savepoint()
            transaction.savepoint_rollback(outer)
            create("a")
            transaction.savepoint_rollback(outer)
            assert seen() == []
            with pytest.raises(DatabaseError), transaction.atomic():
                transaction.savepoint_rollback(inner)  # went with the rollback to the outer one
        assert bodies(django_pair) == []

    def test_set_rollback_rolls_back_every_link(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic(), db.use_slave():
            seen()
            with db.use_master():
                create("a")
            transaction.set_rollback(True)
        assert bodies(django_pair) == []


class TestOnCommit:
    def test_on_commit_runs_once_after_the_commit(self, django_pair: Pair, db: Any) -> None:
        called: list[list[str]] = []
        with transaction.atomic():
            transaction.on_commit(lambda: called.append(bodies(django_pair)))
            with db.use_slave():
                seen()
                transaction.on_commit(lambda: called.append(bodies(django_pair)))
            create("a")  # opens the master's link, which must not forget the callbacks
            assert called == []
        assert called == [["a"], ["a"]]

    def test_on_commit_does_not_run_after_a_rollback(self, db: Any) -> None:
        called: list[int] = []
        with transaction.atomic():
            with rolled_back():
                transaction.on_commit(lambda: called.append(1))
                create("a")
            transaction.on_commit(lambda: called.append(2))
        with rolled_back():
            transaction.on_commit(lambda: called.append(3))
            create("a")
        create("b")
        assert called == [2]

    def test_on_commit_outside_a_block_runs_at_once(self, db: Any) -> None:
        called: list[int] = []
        with db.use_slave():
            transaction.on_commit(lambda: called.append(1))
        assert called == [1]

    def test_on_commit_can_switch_and_write(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), transaction.atomic():
            with db.use_master():
                create("a")
            transaction.on_commit(lambda: create("b"))
        assert bodies(django_pair) == ["a", "b"]

    def test_on_commit_runs_after_a_block_on_the_slave_alone(self, django_pair: Pair, db: Any) -> None:
        called: list[int] = []
        with db.use_slave(), transaction.atomic():
            seen()
            transaction.on_commit(lambda: called.append(1))
        assert called == [1]
        assert has_no_links(django_pair, "master")


class TestLostLinks:
    """A server that goes away in a block."""

    def test_s5_losing_the_slave_does_not_undo_the_commit_on_the_master(self, django_pair: Pair, db: Any) -> None:
        called: list[int] = []
        with transaction.atomic():
            with db.use_slave():
                link = link_id(db)
            create("a")
            transaction.on_commit(lambda: called.append(1))
            kill(django_pair, "slave", link)
        assert (bodies(django_pair), called) == (["a"], [1])
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only, @@autocommit") == (1, 1)

    def test_s5_losing_the_slave_does_not_fail_the_rollback(self, django_pair: Pair, db: Any) -> None:
        with rolled_back():
            with db.use_slave():
                kill_after = link_id(db)
            create("a")
            kill(django_pair, "slave", kill_after)
        assert bodies(django_pair) == []
        create("b")
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only, @@autocommit") == (1, 1)
        assert bodies(django_pair) == ["b"]

    def test_s5_losing_the_master_fails_the_block(self, django_pair: Pair, db: Any) -> None:
        with pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            with db.use_slave():
                seen()
            create("a")
            kill(django_pair, "master", link_id(db))
            create("b")
        with transaction.atomic():
            create("c")
        assert bodies(django_pair) == ["c"]

    def test_s5_losing_the_master_at_the_commit_fails_the_block(self, django_pair: Pair, db: Any) -> None:
        called: list[int] = []
        with pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            with db.use_slave():
                seen()
            create("a")
            transaction.on_commit(lambda: called.append(1))
            kill(django_pair, "master", link_id(db))
        assert (bodies(django_pair), called) == ([], [])
        with transaction.atomic():
            create("c")
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only, @@autocommit, @@in_transaction") == (1, 1, 0)
        assert bodies(django_pair) == ["c"]

    def test_s5_losing_the_slave_after_a_read_fails_the_block(self, django_pair: Pair, db: Any) -> None:
        with pytest.raises(DatabaseError), db.use_slave(), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            kill(django_pair, "slave", link_id(db))
            seen()
        with db.use_slave(), transaction.atomic():
            assert seen() == []


class TestByHand:
    """set_autocommit(False), commit(), rollback()."""

    def test_s5_commit_and_rollback_end_a_manual_transaction_on_every_link(self, django_pair: Pair, db: Any) -> None:
        transaction.set_autocommit(False)
        assert not transaction.get_autocommit()
        with db.use_slave():
            assert seen() == []
        create("a")
        with db.use_slave():
            assert seen() == ["a"]
        transaction.rollback()
        with db.use_slave():
            assert seen() == []
        assert sides(db)[-1] == SLAVE
        create("b")
        assert bodies(django_pair) == []
        transaction.commit()
        assert bodies(django_pair) == ["b"]
        transaction.set_autocommit(True)
        for state in (db.use_slave, db.use_master):
            with state():
                assert ask(db, "SELECT @@autocommit, @@in_transaction") == (1, 0)

    def test_s5_an_atomic_block_in_a_manual_transaction_is_a_savepoint(self, django_pair: Pair, db: Any) -> None:
        transaction.set_autocommit(False)
        create("a")
        with rolled_back():
            create("b")
        assert seen() == ["a"]
        assert bodies(django_pair) == []
        transaction.commit()
        transaction.set_autocommit(True)
        assert bodies(django_pair) == ["a"]

    def test_m1_a_write_committed_by_turning_autocommit_on_is_recorded(self, django_pair: Pair, db: Any) -> None:
        with db.use_master() as frame:
            transaction.set_autocommit(False)
            create("a")
            assert frame.scope.all_written() is None
            transaction.set_autocommit(True)  # MySQL commits what is open
            assert bodies(django_pair) == ["a"]
            assert frame.scope.all_written() is not None

    def test_commit_and_rollback_in_an_atomic_block_are_errors(self, db: Any) -> None:
        with transaction.atomic():
            for wrong in (db.commit, db.rollback, lambda: db.set_autocommit(True)):
                with pytest.raises(transaction.TransactionManagementError):
                    wrong()

    def test_commit_and_rollback_without_a_transaction_do_nothing(self, db: Any) -> None:
        db.commit()
        db.rollback()
        with db.use_slave():
            db.commit()

    def test_s5_autocommit_off_in_the_settings_begins_transactions(self, django_pair: Pair, db: Any, make: Any) -> None:
        db = make(AUTOCOMMIT=False)
        with db.use_slave():
            assert ask(db, "SELECT COUNT(*) FROM project_message") == 0
        Message.objects.using(db.alias).create(body="a")
        assert bodies(django_pair) == []
        db.rollback()
        Message.objects.using(db.alias).create(body="b")
        db.commit()
        assert bodies(django_pair) == ["b"]


class TestSelectForUpdate:
    def test_select_for_update_locks_on_the_master(self, django_pair: Pair, db: Any) -> None:
        create("a")
        with transaction.atomic():
            assert Message.objects.select_for_update().get().body == "a"
            with pytest.raises(Exception, match=dialect.LOCKED):
                on(django_pair, "master", "SELECT * FROM project_message FOR UPDATE NOWAIT")

    def test_select_for_update_in_slave_state_locks_on_the_master(self, django_pair: Pair, db: Any) -> None:
        create("a")
        with db.use_slave(), transaction.atomic():
            assert Message.objects.select_for_update().get().body == "a"
            with pytest.raises(Exception, match=dialect.LOCKED):
                on(django_pair, "master", "SELECT * FROM project_message FOR UPDATE NOWAIT")
            assert sides(db)[-1] == MASTER

    def test_select_for_update_outside_a_block_is_an_error(self, db: Any) -> None:
        with db.use_slave(), pytest.raises(transaction.TransactionManagementError):
            Message.objects.select_for_update().get()


def test_two_connections_of_one_alias_have_separate_blocks(django_pair: Pair, db: Any) -> None:
    copy: Any = connections["default"].copy()
    with transaction.atomic():
        create("a")
        assert ask(copy, "SELECT COUNT(*) FROM project_message") == 0
        with copy.use_slave():
            assert (db.state, copy.state) == (SLAVE, SLAVE)  # one alias, one state
    assert ask(copy, "SELECT COUNT(*) FROM project_message") == 1
    copy.close()
