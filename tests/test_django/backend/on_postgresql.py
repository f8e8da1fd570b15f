"""What only PostgreSQL has: server-side cursors, COPY, roles, conflicts with replay. `test_postgresql.py` runs them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.models import F
from django.test import override_settings
from tests.altered import altered
from tests.bouncer import DROPS_OPTIONS, bouncers
from tests.ended_links import while_it_sleeps
from tests.test_django.backend.asking import ask, bodies, default_with, link_id, on, seen, sides
from tests.test_django.conftest import RunPython
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message, Tag
from tests.test_django.project.served import DRIVER

from replswitch import MASTER, SLAVE, SlaveWriteError, carry, resume
from replswitch.decorators import use_slave
from replswitch.testing import assert_reads_on

WRITES = "CREATE OR REPLACE FUNCTION writes() RETURNS int VOLATILE LANGUAGE sql AS $$ {} RETURNING 1 $$"


def iterate(db: Any) -> list[str]:
    rows = Message.objects.using(db.alias).order_by("pk").values_list("body", flat=True)
    return list(rows.iterator(chunk_size=2))


@pytest.fixture
def five(django_pair: Pair, db: Any) -> list[str]:
    """Five messages that both servers have."""
    Message.objects.bulk_create(Message(body=body) for body in "abcde")
    django_pair.wait_caught_up()
    return list("abcde")


class TestServerSideCursors:
    def test_s6_the_rows_of_an_iterator_come_from_the_link_of_its_statement(self, db: Any, five: list[str]) -> None:
        with use_slave():
            rows = Message.objects.order_by("pk").iterator(chunk_size=2)
            found = [next(rows).body]
            with db.use_master():
                Message.objects.create(body="f")
                found += [row.body for row in rows]
        assert found == five
        assert sides(db)[1:] == [SLAVE, MASTER]

    def test_assert_reads_on_reads_a_composed_statement_once(self, db: Any, five: list[str]) -> None:
        sql = import_module(f"{DRIVER}.sql")
        statement = sql.SQL("SELECT body FROM {}").format(sql.Identifier("project_message"))
        with assert_reads_on(SLAVE) as reads, use_slave(), db.chunked_cursor() as chunked, db.cursor() as cursor:
            chunked.execute(statement)
            cursor.execute(statement)
        assert [read.statement.sql for read in reads.right] == ['SELECT body FROM "project_message"'] * 2

    @pytest.mark.parametrize("block", [False, True])
    def test_m1_an_iterator_on_the_master_is_no_write(self, db: Any, five: list[str], block: bool) -> None:
        with db.use_master() as frame:
            if block:
                with transaction.atomic():
                    assert iterate(db) == five
            else:
                assert iterate(db) == five
            frame.scope.settle()
            assert frame.scope.all_written() is None

    @pytest.mark.parametrize("binding", [False, True])
    def test_m1_an_iterator_whose_function_writes_is_a_write(
        self, django_pair: Pair, db: Any, make: Any, five: list[str], binding: bool
    ) -> None:
        ask(db, WRITES.format("INSERT INTO project_message (body) VALUES ('new')"))
        db = make(OPTIONS={"server_side_binding": binding})
        with db.use_master() as frame:
            with db.chunked_cursor() as cursor:
                cursor.execute("SELECT writes(), %s::int", [7])
                assert cursor.fetchall() == [(1, 7)]
            frame.scope.settle()
            assert frame.scope.all_written() is not None
        assert bodies(django_pair) == [*five, "new"]

    def test_s8_a_server_side_cursor_that_writes_moves_to_the_master(self, django_pair: Pair, db: Any) -> None:
        ask(db, WRITES.format("INSERT INTO project_message (body) VALUES ('new')"))
        django_pair.wait_caught_up()
        with use_slave(), db.chunked_cursor() as cursor:
            cursor.execute("SELECT writes()")
            assert cursor.fetchone() == (1,)
        assert bodies(django_pair) == ["new"]

    def test_s8_a_refusal_while_rows_are_fetched_raises(self, django_pair: Pair, db: Any) -> None:
        ask(db, WRITES.format("INSERT INTO project_message (body) VALUES ('new')"))
        django_pair.wait_caught_up()
        with use_slave(), transaction.atomic(), db.chunked_cursor() as cursor:
            cursor.execute("SELECT writes()")
            with pytest.raises(SlaveWriteError):
                cursor.fetchone()
            transaction.set_rollback(True)

    def test_an_iterator_does_not_keep_a_write_from_moving(self, django_pair: Pair, db: Any, five: list[str]) -> None:
        with use_slave():
            for message in Message.objects.iterator(chunk_size=1):
                Message.objects.filter(pk=message.pk).update(body="x")
        assert bodies(django_pair) == ["x"] * 5

    def test_an_error_in_a_server_side_cursor_leaves_the_link_usable(self, db: Any, five: list[str]) -> None:
        for state in (db.use_master, db.use_slave):
            with state(), db.chunked_cursor() as cursor:
                with pytest.raises(DatabaseError):
                    cursor.execute("SELECT 1 / (count(*) - count(*)) FROM project_message")
                assert ask(db, "SELECT @@in_transaction") == 0
                assert iterate(db) == five

    def test_with_disable_server_side_cursors_an_iterator_declares_no_cursor(
        self, django_pair: Pair, make: Any, five: list[str]
    ) -> None:
        db = make(DISABLE_SERVER_SIDE_CURSORS=True)
        with django_pair.statements("slave") as received, db.use_slave():
            assert iterate(db) == five
        assert not [sql for sql in received if "DECLARE" in sql]
        with django_pair.statements("slave") as received, connections["default"].use_slave():  # type: ignore[attr-defined]
            assert iterate(connections["default"]) == five
        assert [sql for sql in received if sql.startswith("DECLARE")]


class TestOptions:
    def test_a_transaction_has_the_isolation_level_of_the_options(self, make: Any) -> None:
        from django.db.backends.postgresql.psycopg_any import IsolationLevel  # noqa: PLC0415 - of the driver

        db = make(OPTIONS={"isolation_level": IsolationLevel.REPEATABLE_READ})
        for state in (db.use_master, db.use_slave):
            with state(), transaction.atomic(using=db.alias):
                assert ask(db, "SHOW transaction_isolation") == "repeatable read"

    def test_a_serializable_transaction_in_slave_state_runs_on_the_master(self, make: Any) -> None:
        from django.db.backends.postgresql.psycopg_any import IsolationLevel  # noqa: PLC0415 - of the driver

        db = make(OPTIONS={"isolation_level": IsolationLevel.SERIALIZABLE})
        with db.use_slave():
            with transaction.atomic(using=db.alias), transaction.atomic(using=db.alias):
                assert ask(db, "SHOW transaction_isolation") == "serializable"
                assert sides(db)[-1] == MASTER
            assert ask(db, "SELECT @@in_transaction") == 0

    def test_every_link_has_the_role_of_the_options(self, django_pair: Pair, make: Any) -> None:
        with closing(django_pair.admin()) as admin:
            for sql in ("DROP ROLE IF EXISTS reader", "CREATE ROLE reader", f"GRANT reader TO {django_pair.user}"):
                dialect.run(admin, sql)
        django_pair.wait_caught_up()
        db = make(OPTIONS={"assume_role": "reader"})
        for state in (db.use_master, db.use_slave):
            with state():
                assert ask(db, "SELECT CURRENT_USER") == "reader"

    def test_parameters_can_be_bound_by_the_server(self, django_pair: Pair, make: Any) -> None:
        db = make(OPTIONS={"server_side_binding": True})
        messages = Message.objects.using(db.alias)
        with db.use_slave():
            messages.create(body="a%b")
            django_pair.wait_caught_up()
        with db.use_slave():
            assert messages.get(body="a%b").body == "a%b"
            assert sides(db)[-1] == SLAVE
            assert iterate(db) == ["a%b"]

    def test_the_time_zone_of_the_settings_holds_on_every_link(self, db: Any) -> None:
        for zone in ("Asia/Tokyo", "UTC"):
            with override_settings(TIME_ZONE=zone):
                for state in (db.use_master, db.use_slave):
                    with state():
                        assert ask(db, "SHOW TimeZone") == "UTC"  # USE_TZ: the connection's is UTC
                        assert ask(db, "SELECT now()").tzinfo is not None


@contextmanager
def copied_in(cursor: Any, rows: str) -> Iterator[None]:
    """Copy rows with the driver's own methods."""
    sql = "COPY project_tag (name) FROM STDIN"
    if DRIVER == "psycopg":
        with cursor.copy(sql) as copy:
            copy.write(rows)
            yield
    else:
        cursor.copy_expert(sql, io.StringIO(rows))
        yield


def copied_out(cursor: Any) -> str:
    sql, rows = "COPY (SELECT name FROM project_tag) TO STDOUT", io.StringIO()
    if DRIVER == "psycopg":
        with cursor.copy(sql) as copy:
            return b"".join(copy).decode()
    cursor.copy_expert(sql, rows)
    return rows.getvalue()


class TestCopy:
    def test_m1_rows_can_be_copied_in_and_out(self, django_pair: Pair, db: Any) -> None:
        with db.use_master() as frame:
            with db.cursor() as cursor, copied_in(cursor, "a\n"):
                pass
            frame.scope.settle()
            assert frame.scope.all_written() is not None
        django_pair.wait_caught_up()
        with db.use_slave():
            with db.cursor() as cursor:
                assert copied_out(cursor) == "a\n"
            assert db.route.side == SLAVE

    def test_s8_a_copy_in_slave_state_runs_on_the_master(self, db: Any) -> None:
        with use_slave(), db.cursor() as cursor:
            with copied_in(cursor, "a\n"):
                pass
            assert Tag.objects.get().name == "a"
            assert db.route.side == MASTER


class TestFaults:
    def test_an_unlogged_table_is_read_on_the_master(self, django_pair: Pair, db: Any) -> None:
        ask(db, "DROP TABLE IF EXISTS unlogged")
        ask(db, "CREATE UNLOGGED TABLE unlogged AS SELECT 7 AS number")
        django_pair.wait_caught_up()
        with db.use_slave():
            assert ask(db, "SELECT number FROM unlogged") == 7
            assert sides(db)[-1] == MASTER

    @pytest.mark.parametrize("table", ["unlogged", "late"])
    def test_a_block_whose_first_read_moves_can_have_savepoints(self, django_pair: Pair, db: Any, table: str) -> None:
        """PostgreSQL refuses every further statement in the slave's transaction."""
        django_pair.stop_slave()
        ask(db, f"DROP TABLE IF EXISTS {table}")
        ask(db, f"CREATE {'UNLOGGED' if table == 'unlogged' else ''} TABLE {table} AS SELECT 7 AS number")
        with db.use_slave(), transaction.atomic():
            assert ask(db, f"SELECT number FROM {table}") == 7
            with transaction.atomic():
                assert ask(db, f"SELECT number FROM {table}") == 7
            assert sides(db)[-1] == MASTER
        ask(db, f"DROP TABLE {table}")

    @pytest.mark.parametrize("block", [False, True])
    def test_f1_a_read_that_replay_cancels_runs_again(
        self, django_pair: Pair, db: Any, five: list[str], warnings: Any, block: bool
    ) -> None:
        """A conflict with replay (40001) is no fault of the slave, which stays in rotation."""

        def change() -> None:
            with closing(django_pair.connect()) as plain:
                dialect.run(plain, "ALTER TABLE project_message ALTER body SET DEFAULT 'x'")

        with altered(django_pair, "slave", max_standby_streaming_delay="0"):
            try:
                with (
                    db.use_slave(),
                    while_it_sleeps(django_pair, "slave", link_id(db), change) as sleep,
                    transaction.atomic() if block else nullcontext(),
                ):
                    assert ask(db, f"SELECT {sleep}, (SELECT COUNT(*) FROM project_message)") == (0, 5)
                django_pair.wait_caught_up()  # otherwise replay can cancel the next read, too
                with db.use_slave():
                    seen()
                    assert sides(db)[-1] == SLAVE
            finally:
                ask(db, "ALTER TABLE project_message ALTER body DROP DEFAULT")
        assert not [warning for warning in warnings() if "out of rotation" in warning]

    def test_s8_get_or_create_in_a_block_of_slave_state_raises_and_leaves_the_block_usable(self, db: Any) -> None:
        with use_slave(), transaction.atomic():
            with pytest.raises(SlaveWriteError):
                Tag.objects.get_or_create(name="a")
            assert Tag.objects.count() == 0
            with transaction.atomic():
                assert Tag.objects.count() == 0

    def test_m1_several_statements_in_one_string_are_recorded(self, django_pair: Pair, db: Any) -> None:
        with db.use_master() as frame:
            ask(db, "INSERT INTO project_tag (name) VALUES ('a'); INSERT INTO project_tag (name) VALUES ('b')")
            frame.scope.settle()
            assert frame.scope.all_written() is not None
        assert on(django_pair, "master", "SELECT COUNT(*) FROM project_tag") == 2

    def test_vacuum_runs_outside_transactions_and_in_slave_state_on_the_master(self, db: Any) -> None:
        ask(db, "VACUUM project_tag")
        with pytest.raises(DatabaseError), transaction.atomic():
            ask(db, "VACUUM project_tag")
        with use_slave():
            ask(db, "VACUUM project_tag")
            assert sides(db)[-1] == MASTER


@pytest.mark.parametrize("settings", [DROPS_OPTIONS, {}], ids=["PgBouncer drops options", "PgBouncer refuses options"])
def test_m1_behind_pgbouncer_visitors_see_their_own_writes(
    django_pair: Pair, db: Any, settings: dict[str, str]
) -> None:
    with bouncers(django_pair, **settings) as (master, slave), default_with({"PORT": slave}, PORT=master) as ours:
        with resume(""), use_slave():
            assert Tag.objects.count() == 0
            assert ours.route.side == (SLAVE if settings else MASTER)
        django_pair.stop_slave()
        for number in range(12):  # often enough for statements that psycopg would prepare
            with resume(""), use_slave():
                Tag.objects.create(name=str(number))
                token = carry()
            assert '"postgresql:' in token
            with resume(token), use_slave():
                assert Tag.objects.count() == number + 1
                before = carry()
                Tag.objects.update(name=F("name"))
                assert carry() != before, "a write on a connection that should refuse it was not recorded"


POSTGIS = """
import sys
from types import ModuleType

from django.db import connection
from django.db.backends.postgresql import base

prepared = []


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params):
        raw = super().get_new_connection(conn_params)
        prepared.append(raw)
        return raw


# Django's own module needs GDAL.
name = "django.contrib.gis.db.backends.postgis.base"
sys.modules[name] = ModuleType(name)
sys.modules[name].DatabaseWrapper = DatabaseWrapper

import django

django.setup()
from replswitch.decorators import use_slave
from tests.test_django.project.models import Tag

with use_slave():
    assert Tag.objects.count() == 0
    assert connection.route.side == "slave"
    Tag.objects.create(name="a")
    assert connection.route.side == "master"
assert connection.stock is DatabaseWrapper
print(len(prepared))
"""


def test_the_backend_of_postgis_is_django_s_on_all_servers(django_pair: Pair, run_python: RunPython) -> None:
    engine = "django_replswitch.backends.postgis"
    databases = {"default": {**connections.settings["default"], "ENGINE": engine}}
    assert run_python(POSTGIS, databases=databases).split() == ["2"]
