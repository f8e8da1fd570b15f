"""Servers and connections that fail in the middle of something (S5, F1, F3, F4)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings
from tests.ended_links import kill, killed_while_it_sleeps
from tests.test_django.backend.asking import ask, bodies, default_with, has_no_links, link_id, seen, sides
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message

from replswitch import MASTER, SLAVE, NoServerError
from replswitch.decorators import use_master, use_slave

Warnings = Callable[[], list[str]]


class TestASlaveInABlock:
    def test_s5_losing_a_slave_after_a_read_ends_the_block(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic():
            with use_slave():
                kill(django_pair, "slave", link_id(db))
                with pytest.raises(DatabaseError):
                    seen()
                with pytest.raises(TransactionManagementError):
                    seen()
            with pytest.raises(TransactionManagementError):
                Message.objects.create(body="never")
        assert bodies(django_pair) == []
        with transaction.atomic():
            Message.objects.create(body="new")
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only, @@autocommit") == (1, 1)
        assert bodies(django_pair) == ["new"]

    def test_s5_losing_a_slave_in_a_savepoint_ends_the_block(self, django_pair: Pair, db: Any) -> None:
        with transaction.atomic():
            with use_slave():
                link = link_id(db)
                with pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
                    kill(django_pair, "slave", link)
                    seen()
            with pytest.raises(TransactionManagementError):
                Message.objects.create(body="never")
        assert bodies(django_pair) == []

    def test_s5_losing_a_slave_in_a_manual_transaction_raises_until_the_rollback(
        self, django_pair: Pair, db: Any
    ) -> None:
        transaction.set_autocommit(False)
        with use_slave():
            kill(django_pair, "slave", link_id(db))
            with pytest.raises(DatabaseError):
                seen()
        with pytest.raises(TransactionManagementError):
            seen()
        with pytest.raises(DatabaseError):
            transaction.commit()
        with pytest.raises(TransactionManagementError):
            seen()
        transaction.rollback()
        Message.objects.create(body="new")
        transaction.commit()
        transaction.set_autocommit(True)
        assert bodies(django_pair) == ["new"]

    def test_f1_the_first_read_of_a_block_whose_link_is_killed_runs_again(
        self, django_pair: Pair, persistent: Any
    ) -> None:
        db = persistent
        with use_slave():
            link = link_id(db)
            with transaction.atomic():
                with killed_while_it_sleeps(django_pair, "slave", link) as sleep:
                    assert ask(db, f"SELECT {sleep}, @@tx_read_only") == (0, 1)
                with transaction.atomic():
                    assert seen() == []
                assert sides(db)[-1] == SLAVE
                assert link_id(db) != link
        assert has_no_links(django_pair, "master")


class TestWithoutTheMaster:
    def test_f3_a_block_in_slave_state_reads_without_the_master(self, django_pair: Pair, db: Any) -> None:
        django_pair.stop_slave("slave")
        with use_slave():
            with use_master():
                Message.objects.create(body="own")
            assert seen() == ["own"]
            assert sides(db)[-1] == MASTER  # which serves the scope from now on
            django_pair.start_slave("slave")
            django_pair.wait_caught_up()
            django_pair.kill("master")
            with transaction.atomic():
                assert seen() == ["own"]
                assert seen() == ["own"]
                assert sides(db)[-1] == SLAVE
            with pytest.raises(NoServerError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
                seen()
                with use_master():
                    Message.objects.create(body="never")

    def test_f3_a_block_whose_first_statement_loses_the_master_reads_on_another_server(
        self, django_pair: Pair, db: Any
    ) -> None:
        django_pair.stop_slave("slave")
        with use_slave():
            with use_master():
                Message.objects.create(body="own")
            with transaction.atomic():
                master = link_id(db)
            with transaction.atomic():
                with killed_while_it_sleeps(django_pair, "master", master) as sleep:
                    assert ask(db, f"SELECT {sleep}, @@tx_read_only") == (0, 1)
                assert seen() == ["own"]
                assert (db.queries[-1]["db"], db.queries[-1]["server"]) == (
                    SLAVE,
                    f"127.0.0.1:{django_pair.master['port']}",
                )

    def test_s5_losing_the_master_after_a_write_ends_the_block(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        with pytest.raises(OperationalError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            Message.objects.create(body="never")
            kill(django_pair, "master", link_id(db))
            with use_slave():
                seen()
        assert bodies(django_pair) == []
        (warning,) = warnings()
        assert "is not available" in warning

    def test_f5_losing_the_master_at_a_savepoint_ends_the_block_and_is_logged(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        with transaction.atomic():
            Message.objects.create(body="never")
            kill(django_pair, "master", link_id(db))
            with pytest.raises(DatabaseError), transaction.atomic():
                pass
            with pytest.raises(TransactionManagementError):
                seen()
        assert bodies(django_pair) == []
        assert [re.findall(r"event=([a-z-]+)", line) for line in warnings()] == [["master-lost"], ["master-back"]]


@dialect.only_mariadb  # PostgreSQL can roll back to a savepoint after it
def test_s5_a_deadlock_ends_the_block_on_every_link(django_pair: Pair, db: Any) -> None:
    one, two = (Message.objects.create(body=body) for body in "ab")
    both = threading.Barrier(2)

    def other() -> None:
        with transaction.atomic():
            # The server rolls back the transaction that has changed least.
            Message.objects.bulk_create(Message(body="other") for _ in range(20))
            Message.objects.filter(pk=two.pk).update(body="other")
            both.wait(10)
            Message.objects.filter(pk=one.pk).update(body="other")
        connections.close_all()

    thread = threading.Thread(target=other)
    thread.start()
    with transaction.atomic():
        Message.objects.filter(pk=one.pk).update(body="mine")
        both.wait(10)
        with pytest.raises(OperationalError, match="Deadlock"), transaction.atomic():
            Message.objects.filter(pk=two.pk).update(body="mine")
        with pytest.raises(TransactionManagementError):
            Message.objects.create(body="mine")
    thread.join()
    assert set(bodies(django_pair)) == {"other"}


class TestBegunByAStatement:
    """BEGIN in autocommit mode is the application's own transaction."""

    def test_s5_the_master_serves_the_rest_of_a_transaction_begun_by_a_statement(
        self, django_pair: Pair, db: Any
    ) -> None:
        with db.use_master() as frame, db.cursor() as cursor:
            cursor.execute("BEGIN")
            Message.objects.create(body="a")
            with db.use_slave():
                assert seen() == ["a"]
                assert sides(db)[-1] == MASTER
            assert bodies(django_pair) == []
            assert frame.scope.all_written() is None
            cursor.execute("COMMIT")
            assert frame.scope.all_written() is not None
            assert bodies(django_pair) == ["a"]
        with db.use_slave():
            seen()
        assert sides(db)[-1] == SLAVE

    @pytest.mark.parametrize("end", ["ROLLBACK", "rollback()"])
    def test_s5_rollback_ends_a_transaction_begun_by_a_statement_on_every_link(
        self, django_pair: Pair, db: Any, end: str
    ) -> None:
        with db.cursor() as cursor:
            with db.use_slave():
                cursor.execute("START TRANSACTION")
                seen()
            Message.objects.create(body="never")
            assert bodies(django_pair) == []
            if end == "ROLLBACK":
                cursor.execute(end)
            else:
                db.rollback()
        assert bodies(django_pair) == []
        for state in (db.use_slave, db.use_master):
            with state():
                assert ask(db, "SELECT @@autocommit, @@in_transaction") == (1, 0)

    def test_s5_commit_ends_a_transaction_begun_by_a_statement(self, django_pair: Pair, db: Any) -> None:
        with db.cursor() as cursor:
            cursor.execute("BEGIN")
            Message.objects.create(body="a")
        db.commit()
        assert bodies(django_pair) == ["a"]

    def test_s5_an_atomic_block_commits_a_transaction_begun_by_a_statement(self, django_pair: Pair, db: Any) -> None:
        with db.cursor() as cursor:
            cursor.execute("BEGIN")
            Message.objects.create(body="a")
        with transaction.atomic():
            Message.objects.create(body="b")
            assert bodies(django_pair) == []
        assert bodies(django_pair) == ["a", "b"]
        assert ask(db, "SELECT @@autocommit, @@in_transaction") == (1, 0)

    def test_s5_a_transaction_begun_by_a_statement_does_not_reach_the_next_request(
        self, django_pair: Pair, persistent: Any
    ) -> None:
        with persistent.cursor() as cursor:
            cursor.execute("BEGIN")
            Message.objects.create(body="never")
        persistent.close_if_unusable_or_obsolete()
        assert seen() == []
        assert ask(persistent, "SELECT @@in_transaction") == 0


class TestStatementsAtFault:
    def test_f1_a_statement_that_ends_its_own_connection_takes_no_server_out_of_rotation(
        self, db: Any, warnings: Warnings
    ) -> None:
        with db.use_slave(), pytest.raises(OperationalError), db.cursor() as cursor:
            cursor.execute(dialect.translated("KILL CONNECTION_ID()"))
        with db.use_slave():
            assert seen() == []
            assert sides(db)[-1] == SLAVE  # no server is out of rotation
        assert not [warning for warning in warnings() if "out of rotation" in warning or "is not available" in warning]

    def test_f4_any_error_while_connecting_to_a_slave_takes_it_out_of_rotation(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        port = django_pair.slaves[0]["port"]
        wrong = ({"PASSWORD": "wrong"}, {"NAME": "nowhere"}, {"OPTIONS": dialect.REFUSED_OPTIONS})
        slaves = [{"PORT": port, "WEIGHT": 1e9, **settings} for settings in wrong]
        with default_with(*slaves, {"PORT": port, "WEIGHT": 1e-9}) as many:
            for _ in range(2):
                with many.use_slave():
                    assert seen() == []
                    assert sides(many)[-1] == SLAVE
        assert len(warnings()) == 3
        assert all("is out of rotation" in warning for warning in warnings())

    @override_settings(REPLSWITCH={"FALLBACK": "error"})
    def test_no_server_error_with_fallback_error_is_an_operational_error_of_django(
        self, django_pair: Pair, db: Any
    ) -> None:
        with (
            default_with({"PORT": django_pair.slaves[0]["port"], "PASSWORD": "wrong"}) as none,
            none.use_slave(),
            pytest.raises(OperationalError, match='"fallback" is "error"') as raised,
        ):
            seen()
        assert isinstance(raised.value, NoServerError)


class TestNotReplicatedYet:
    """A migration that the slave does not have yet (F4)."""

    @pytest.fixture(autouse=True)
    def late(self, django_pair: Pair) -> Iterator[None]:
        django_pair.stop_slave()
        with closing(django_pair.connect()) as plain:
            dialect.run(plain, "CREATE TABLE shop.late (id INT)")
            yield
            dialect.run(plain, "DROP TABLE shop.late")

    def test_f4_an_undefined_table_on_the_slave_is_read_on_the_master(self, db: Any) -> None:
        with db.use_slave() as frame:
            assert ask(db, "SELECT COUNT(*) FROM late") == 0
            assert sides(db)[-1] == MASTER
            assert frame.scope.decisions[-1].reason == "not-replicated"
        with db.use_slave():
            seen()
            assert sides(db)[-1] == SLAVE

    def test_f4_an_undefined_table_on_the_slave_raises_in_a_block(self, db: Any) -> None:
        with db.use_slave(), transaction.atomic():
            assert seen() == []
            with pytest.raises(DatabaseError), transaction.atomic():
                ask(db, "SELECT COUNT(*) FROM late")
            assert seen() == []
            assert sides(db)[-1] == SLAVE


@pytest.mark.parametrize("state", [MASTER, SLAVE])
def test_s6_a_closed_cursor_keeps_rowcount_lastrowid_and_description(db: Any, state: str) -> None:
    with db.use_slave() if state == SLAVE else db.use_master():
        with db.cursor() as cursor:
            cursor.execute("SELECT 1 AS one UNION SELECT 2")
        assert (cursor.rowcount, cursor.description[0][0]) == (2, "one")
        with db.cursor() as cursor:
            cursor.execute("INSERT INTO project_message (body) VALUES ('a')")
            assert cursor.rowcount == 1
            key = cursor.lastrowid
        assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (1, key, None)
    assert dialect.IS_POSTGRESQL or Message.objects.get().pk == key


FORK = """
import ctypes, os
import django
django.setup()
from django.db import connection

def number(state):
    with state(), connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]

def both():
    return number(connection.use_master), number(connection.use_slave)

before = both()
read, write = os.pipe()
child = ctypes.PyDLL(None).fork()  # which Python's own hooks do not see
if not child:
    mine = both()
    connection.close()
    os.write(write, repr([ours == theirs for ours, theirs in zip(mine, before)]).encode())
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read, 100).decode(), both() == before)
"""


def test_s12_a_link_belongs_to_the_process_that_opened_it(run_python: Callable[..., str]) -> None:
    assert run_python(FORK).split("\n")[-2] == "[False, False] True"


FORK_IN_A_TRANSACTION = """
import os
import django
django.setup()
from django.db import InterfaceError, connection, transaction
from tests.test_django.project import dialect
from tests.test_django.project.models import Message

def stored():
    return Message.objects.count()

def refuses(use):
    try:
        use()
    except InterfaceError as error:
        return "before a fork" in str(error)
    return False

def in_child(use):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        answers = use()
    except BaseException as error:
        answers = [repr(error)]
    if answers != [True] * len(answers):
        print("in the child:", answers, flush=True)
    os._exit(0)

def by_hand():
    answers = [refuses(stored), refuses(connection.commit)]
    connection.rollback()
    connection.set_autocommit(True)
    return [*answers, stored() == 0]

for use_state in connection.use_master, connection.use_slave:
    for end in connection.commit, connection.rollback:
        with use_state():
            connection.set_autocommit(False)
            stored()
            print(in_child(by_hand))
            end()
            connection.set_autocommit(True)

def leave():
    return [refuses(lambda: block.__exit__(None, None, None)), stored() == 0, connection.get_autocommit()]

def leave_by_an_error():
    block.__exit__(ValueError, ValueError(), None)
    return [stored() == 0, connection.get_autocommit()]

for use in leave, leave_by_an_error:
    block = transaction.atomic()
    block.__enter__()
    Message.objects.create(body="the parent's")
    print(in_child(use))
    block.__exit__(ValueError, ValueError(), None)
    print(stored() == 0)

with transaction.atomic():
    Message.objects.create(body="the parent's")
    print(in_child(lambda: [refuses(lambda: Message.objects.create(body="the child's"))]))
print(stored() == 1)
"""


def test_s12_a_forked_child_does_not_share_the_transaction(run_python: Callable[..., str]) -> None:
    assert set(run_python(FORK_IN_A_TRANSACTION).split("\n")) == {"True", ""}
