"""The life of links: each of them is opened late, kept, looked at, given up and opened again by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, Error, close_old_connections, connections, reset_queries, transaction
from django.db.backends.signals import connection_created
from django.test import override_settings
from tests.ended_links import kill, killed_while_it_sleeps, while_it_sleeps
from tests.test_django.backend.asking import (
    ask,
    bodies,
    default_with,
    has_no_links,
    link_id,
    links_on,
    seen,
    sides,
)
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message
from tests.test_django.project.served import NAMES, PROJECT

from django_replswitch.decorators import use_slave
from replswitch import MASTER, SLAVE, NoServerError
from replswitch.testing import Proxy

Warnings = Callable[[], list[str]]

STATE = "SELECT @@tx_read_only, @@autocommit, @@in_transaction"


def next_request() -> None:
    """Do what Django does between two requests."""
    request_finished.send(sender=None)
    request_started.send(sender=None)


def link_ids(db: Any) -> tuple[int, int]:
    """The links to the master and to the slave; they are opened if they are not."""
    with db.use_slave():
        slave = link_id(db)
    return link_id(db), slave


def check_both(db: Any) -> None:
    """Both links work as they should."""
    assert ask(db, STATE) == (0, 1, 0)
    with db.use_slave():
        assert ask(db, STATE) == (1, 1, 0)


class TestClosedMeanwhile:
    """What the garbage collector ends, such as an earlier response, may close a link that was just chosen."""

    @pytest.mark.parametrize("method", ["execute", "executemany"])
    @pytest.mark.parametrize("state", ["master", "slave"])
    def test_a_statement_whose_link_is_closed_as_it_is_chosen_runs_on_another_link(
        self, db: Any, monkeypatch: pytest.MonkeyPatch, method: str, state: str
    ) -> None:
        choose, chosen = db.route.for_statement, []

        def close_first() -> Any:
            link = choose()
            chosen.append(link)
            if len(chosen) == 1:
                db.close_link(link)
            return link

        monkeypatch.setattr(db.route, "for_statement", close_first)
        with getattr(db, f"use_{state}")(), db.cursor() as cursor:
            getattr(cursor, method)("SELECT %s", (1,) if method == "execute" else [(1,)])
            assert cursor.fetchall() == ((1,),)
        assert len({id(link) for link in chosen}) == 2


class TestOpening:
    def test_a_request_that_reads_opens_no_link_to_the_master(self, django_pair: Pair, db: Any) -> None:
        opened: list[str] = []

        def note(connection: Any, **_: Any) -> None:
            opened.append(connection.alias)

        connection_created.connect(note)
        try:
            with use_slave():
                seen()
                with db.cursor() as cursor:
                    cursor.execute("SELECT 1")
                with transaction.atomic():
                    Message.objects.exists()
                assert db.is_usable()
            next_request()
        finally:
            connection_created.disconnect(note)
        assert opened == ["default"]
        assert has_no_links(django_pair, "master")

    def test_autocommit_commit_and_rollback_in_slave_state_open_no_link_to_the_master(
        self, django_pair: Pair, db: Any
    ) -> None:
        with use_slave():
            assert transaction.get_autocommit()
            transaction.set_autocommit(False)
            transaction.commit()
            transaction.rollback()
            transaction.set_autocommit(True)
            close_old_connections()
            db.close()
        assert has_no_links(django_pair, "master", "slave")

    def test_a_request_that_writes_opens_no_link_to_the_slave(self, django_pair: Pair, db: Any) -> None:
        Message.objects.create(body="a")
        assert seen() == ["a"]
        assert has_no_links(django_pair, "slave")

    def test_a_cursor_without_a_statement_opens_no_link_to_the_master(self, django_pair: Pair, db: Any) -> None:
        with use_slave(), db.cursor():
            pass
        assert has_no_links(django_pair, "master")

    def test_each_link_is_opened_once(self, django_pair: Pair, db: Any) -> None:
        first = link_ids(db)
        assert link_ids(db) == first
        assert (links_on(django_pair, "master"), links_on(django_pair, "slave")) == ({first[0]}, {first[1]})

    def test_queries_in_connection_created_run_on_the_link_being_opened(self, db: Any) -> None:
        def greet(connection: Any, **_: Any) -> None:
            ask(connection, "SELECT @greeted := 1")

        connection_created.connect(greet)
        try:
            with db.use_slave():
                assert ask(db, "SELECT @greeted") == 1
            assert ask(db, "SELECT @greeted") == 1
        finally:
            connection_created.disconnect(greet)

    def test_ensure_connection_in_slave_state_opens_the_slave_link_only(self, django_pair: Pair, db: Any) -> None:
        with db.use_slave():
            db.ensure_connection()
            assert db.connection is not None
            assert has_no_links(django_pair, "master")
        db.ensure_connection()
        check_both(db)


class TestClosing:
    def test_close_closes_the_links_to_all_servers(self, django_pair: Pair, db: Any) -> None:
        before = link_ids(db)
        db.close()
        db.close()
        assert db.connection is None
        assert has_no_links(django_pair, "master", "slave")
        assert link_ids(db) != before
        check_both(db)

    def test_close_in_slave_state_closes_all_links(self, django_pair: Pair, db: Any) -> None:
        link_ids(db)
        with db.use_slave():
            db.close()
        assert has_no_links(django_pair, "master", "slave")

    def test_connections_close_all_closes_all_links(self, django_pair: Pair, db: Any) -> None:
        link_ids(db)
        link_ids(connections["other"])
        connections.close_all()
        assert has_no_links(django_pair, "master", "slave")
        check_both(db)

    def test_a_cursor_of_a_closed_connection_raises(self, db: Any) -> None:
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.close()
            with pytest.raises(DatabaseError):
                cursor.execute("SELECT 1")

    @pytest.mark.parametrize("closed", ["by the application", "as too old"])
    @pytest.mark.parametrize("joined", [[SLAVE], [MASTER], [SLAVE, MASTER]], ids="+".join)
    def test_close_in_a_block_ends_all_its_links(
        self, django_pair: Pair, db: Any, closed: str, joined: list[str]
    ) -> None:
        link_ids(db)
        with transaction.atomic():
            for side in joined:
                with db.use_slave() if side == SLAVE else db.use_master():
                    ask(db, "SELECT 1")
            if MASTER in joined:
                Message.objects.create(body="lost")
            if closed == "as too old":
                close_old_connections()
            else:
                db.close()
            with pytest.raises(Error):
                seen()
        with transaction.atomic():  # at once, with no statement outside a block before
            Message.objects.create(body="a")
        check_both(db)
        assert bodies(django_pair) == ["a"]

    def test_a_block_that_raises_after_close_leaves_a_usable_connection(self, django_pair: Pair, db: Any) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 - the whole block is what raises
            Message.objects.create(body="lost")
            db.close()
            raise ZeroDivisionError
        assert transaction.get_autocommit()
        Message.objects.create(body="a")
        assert bodies(django_pair) == ["a"]


class TestMaxAge:
    def test_without_conn_max_age_no_link_is_kept(self, django_pair: Pair, db: Any) -> None:
        link_ids(db)
        next_request()
        assert has_no_links(django_pair, "master", "slave")

    def test_links_to_all_servers_are_kept_for_conn_max_age(self, persistent: Any) -> None:
        before = link_ids(persistent)
        for _ in range(3):
            next_request()
            assert link_ids(persistent) == before

    def test_each_link_is_closed_at_its_own_max_age(self, persistent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        for module in ("django.db.backends.base.base", "django_replswitch.backends.wrapper"):
            monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now))
        persistent.settings_dict["CONN_MAX_AGE"] = 60
        with persistent.use_slave():
            slave = link_id(persistent)
        now += 40
        master = link_id(persistent)
        now += 40
        next_request()
        new_master, new_slave = link_ids(persistent)
        assert (new_master == master, new_slave == slave) == (True, False)
        check_both(persistent)
        now += 40
        next_request()
        newest_master, newest_slave = link_ids(persistent)
        assert (newest_master == master, newest_slave == new_slave) == (False, True)


class TestHealthChecks:
    """A link that died while it was idle fails no request."""

    @pytest.mark.parametrize("last", [MASTER, SLAVE], ids="last used {}".format)
    @pytest.mark.parametrize("dead", [[MASTER], [SLAVE], [MASTER, SLAVE]], ids=lambda sides: f"{'+'.join(sides)} dead")
    @pytest.mark.parametrize("block", ["atomic", "autocommit", "manual transaction"])
    @pytest.mark.parametrize("first", [MASTER, SLAVE], ids="first used {}".format)
    def test_health_checks_replace_dead_links(
        self,
        django_pair: Pair,
        persistent: Any,
        warnings: Warnings,
        last: str,
        dead: list[str],
        block: str,
        first: str,
    ) -> None:
        db = persistent
        ids = dict(zip((MASTER, SLAVE), link_ids(db), strict=True))
        with db.use_slave() if last == SLAVE else db.use_master():
            ask(db, "SELECT 1")
        for side in dead:
            kill(django_pair, side, ids[side])
        next_request()

        def read_and_write() -> None:
            if first == SLAVE:
                with db.use_slave():
                    assert seen() == []
                    assert ask(db, "SELECT @@tx_read_only") == 1
            Message.objects.create(body="a")
            if first == MASTER:
                with db.use_slave():
                    ask(db, "SELECT 1")

        if block == "atomic":
            with transaction.atomic():
                read_and_write()
        elif block == "manual transaction":
            transaction.set_autocommit(False)
            try:
                read_and_write()
                assert bodies(django_pair) == []
                transaction.commit()
            finally:
                transaction.rollback()
                transaction.set_autocommit(True)
        else:
            read_and_write()
        assert bodies(django_pair) == ["a"]
        assert warnings() == []
        check_both(db)

    @dialect.only_mariadb  # on PostgreSQL, Django sends a statement
    def test_health_checks_ping_each_link_once_a_request(self, django_pair: Pair, persistent: Any) -> None:
        before = link_ids(persistent)
        next_request()
        pings = [django_pair.status(server, "Com_admin_commands") for server in (MASTER, SLAVE)]
        for _ in range(3):
            assert link_ids(persistent) == before
        assert [django_pair.status(server, "Com_admin_commands") for server in (MASTER, SLAVE)] == [
            count + 1 for count in pings
        ]

    @dialect.only_mariadb
    def test_without_conn_health_checks_no_link_is_pinged(self, django_pair: Pair, persistent: Any) -> None:
        persistent.settings_dict["CONN_HEALTH_CHECKS"] = False
        before = link_ids(persistent)
        pings = [django_pair.status(server, "Com_admin_commands") for server in (MASTER, SLAVE)]
        for _ in range(3):
            next_request()
            assert link_ids(persistent) == before
        assert [django_pair.status(server, "Com_admin_commands") for server in (MASTER, SLAVE)] == pings


class TestGoneAway:
    """A link that dies in use, without health checks."""

    def test_a_master_link_killed_between_requests_fails_no_write(self, django_pair: Pair, persistent: Any) -> None:
        persistent.settings_dict["CONN_HEALTH_CHECKS"] = False
        db = persistent
        master, slave = link_ids(db)
        kill(django_pair, "master", master)
        next_request()
        Message.objects.create(body="a")
        assert bodies(django_pair) == ["a"]
        new_master, new_slave = link_ids(db)
        assert (new_master == master, new_slave == slave) == (False, True)
        check_both(db)

    def test_a_master_link_killed_during_a_write_fails_the_write(self, django_pair: Pair, persistent: Any) -> None:
        with (
            killed_while_it_sleeps(django_pair, "master", link_id(persistent)) as sleep,
            pytest.raises(DatabaseError),
        ):
            ask(persistent, f"INSERT INTO project_message (body) SELECT {sleep}")
        Message.objects.create(body="b")
        assert bodies(django_pair) == ["b"]

    def test_f1_a_slave_link_killed_between_requests_fails_no_read(self, django_pair: Pair, persistent: Any) -> None:
        persistent.settings_dict["CONN_HEALTH_CHECKS"] = False
        db = persistent
        master, slave = link_ids(db)
        kill(django_pair, "slave", slave)
        next_request()
        with db.use_slave():
            assert seen() == []
        next_request()
        with db.use_slave():
            assert ask(db, STATE) == (1, 1, 0)
            assert link_id(db) != slave
        assert link_id(db) == master

    def test_f1_a_slave_link_killed_between_two_reads_fails_no_read(self, django_pair: Pair, db: Any) -> None:
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            kill(django_pair, "slave", cursor.fetchone()[0])
            cursor.execute(dialect.translated("SELECT 7, @@tx_read_only"))
            assert cursor.fetchone() == (7, 1)
            assert sides(db)[-1] == SLAVE

    def test_s6_a_scope_keeps_its_slave_after_a_lost_link(self, django_pair: Pair, db: Any, warnings: Warnings) -> None:
        """A connection that was ended says nothing about its server; a new one does."""
        port = django_pair.slaves[0]["port"]
        slaves = [{"PORT": port, "OPTIONS": dialect.variable("me", number)} for number in range(2)]
        with default_with(*slaves) as two, two.use_slave():
            me, link = ask(two, "SELECT @me, CONNECTION_ID()")
            with killed_while_it_sleeps(django_pair, "slave", link) as sleep:
                assert ask(two, f"SELECT {sleep}, @me, @@tx_read_only") == (0, me, 1)
            assert ask(two, "SELECT @me") == me
            assert sides(two)[-1] == SLAVE
        assert warnings() == []

    def test_f1_another_slave_serves_when_one_refuses_connections(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        port = django_pair.slaves[0]["port"]
        with Proxy(port) as proxy:
            mostly = {"PORT": proxy.port, "WEIGHT": 1e9, "OPTIONS": dialect.variable("me", 1)}
            with default_with(mostly, {"PORT": port, "OPTIONS": dialect.variable("me", 2)}) as two:
                with two.use_slave():
                    assert ask(two, "SELECT @me") == 1
                    proxy.refuse()
                    assert ask(two, "SELECT @me, @@tx_read_only") == (2, 1)
                    assert ask(two, "SELECT @me") == 2
                assert sides(two)[-1] == SLAVE
                two.close()
        (warning,) = warnings()
        assert "is out of rotation" in warning

    @override_settings(REPLSWITCH={"DOWNTIME": 0})
    def test_f1_reads_of_an_unreachable_slave_run_on_the_master(
        self, django_pair: Pair, db: Any, warnings: Warnings
    ) -> None:
        django_pair.kill("slave")
        Message.objects.create(body="a")
        with db.use_slave():
            assert seen() == ["a"]
            assert (db.state, sides(db)[-1]) == (SLAVE, MASTER)
        assert "is not available" in warnings()[0]
        django_pair.start("slave")
        django_pair.wait_caught_up()
        with db.use_slave():
            assert seen() == ["a"]
            assert sides(db)[-1] == SLAVE

    def test_f3_reads_continue_without_a_master(self, django_pair: Pair, db: Any) -> None:
        link_ids(db)
        django_pair.kill("master")
        with db.use_slave():
            assert seen() == []
        next_request()
        with db.use_slave():
            assert seen() == []
        with pytest.raises(DatabaseError):
            Message.objects.create(body="a")
        django_pair.start("master")
        next_request()
        check_both(db)

    def test_f3_a_slave_out_of_rotation_serves_when_the_master_is_gone(self, django_pair: Pair, db: Any) -> None:
        django_pair.kill("slave")
        with db.use_slave():
            assert seen() == []
        django_pair.start("slave")
        django_pair.kill("master")
        with db.use_slave():
            assert seen() == []
            assert sides(db)[-1] == SLAVE
        with db.use_slave(), transaction.atomic():
            assert seen() == []
        with pytest.raises(NoServerError, match="cannot be reached"):
            Message.objects.create(body="a")

    def test_f3_a_read_lost_on_the_master_runs_on_another_server(self, django_pair: Pair, persistent: Any) -> None:
        """No slave has what it must see but the one that is about to come up with it."""
        db = persistent
        django_pair.stop_slave()
        with db.use_master():
            Message.objects.create(body="a")
            with db.use_slave():
                link = link_id(db)
                assert sides(db)[-1] == MASTER

                def catch_up() -> None:
                    django_pair.start_slave()
                    django_pair.wait_caught_up()
                    kill(django_pair, "master", link)

                with while_it_sleeps(django_pair, "master", link, catch_up) as sleep:
                    assert ask(db, f"SELECT {sleep}, body FROM project_message") == (0, "a")
                assert sides(db)[-1] == SLAVE


class TestStateLeftByARequest:
    """The state that a request leaves does not harm the next one."""

    @pytest.mark.parametrize("joined", [[SLAVE], [MASTER], [SLAVE, MASTER]], ids="+".join)
    def test_s11_autocommit_left_off_is_on_in_the_next_request(
        self, django_pair: Pair, persistent: Any, joined: list[str]
    ) -> None:
        db = persistent
        link_ids(db)
        transaction.set_autocommit(False)
        for side in joined:
            with db.use_slave() if side == SLAVE else db.use_master():
                ask(db, "SELECT COUNT(*) FROM project_message")
        if MASTER in joined:
            Message.objects.create(body="never committed")
        next_request()
        assert transaction.get_autocommit()
        check_both(db)
        assert bodies(django_pair) == []

    def test_s11_no_transaction_is_left_open_on_the_slave(self, django_pair: Pair, persistent: Any) -> None:
        """It would hold up the slave's replication as soon as a table is altered."""
        with persistent.use_slave(), transaction.atomic():
            seen()
        with transaction.atomic():
            with persistent.use_slave():
                seen()
            Message.objects.create(body="a")
        with closing(django_pair.admin("slave")) as admin:
            assert dialect.run(admin, "SELECT COUNT(*) FROM information_schema.innodb_trx") == [(0,)]

    def test_reset_queries_empties_the_log(self, db: Any) -> None:
        seen()
        reset_queries()
        assert db.queries == []


def test_a_slave_may_repeat_the_settings_of_its_alias(django_pair: Pair) -> None:
    (slave,) = django_pair.slaves
    stock = f"django.db.backends.{PROJECT.backend}"
    repeated = {"ENGINE": stock, "CONN_MAX_AGE": 0, "DISABLE_SERVER_SIDE_CURSORS": False}
    with default_with({**repeated, **{NAMES[key]: value for key, value in slave.items()}}) as db, use_slave():
        assert ask(db, "SELECT @@port") == slave["port"]


@dialect.only_mariadb
class TestRowsThatAreReadOneByOne:
    """With the option ``cursorclass``, as for tables that do not fit into memory."""

    @pytest.mark.parametrize("side", ["slave", "master"])
    @pytest.mark.parametrize("rows", ["iterator", "cursor"])
    def test_s6_all_rows_arrive_if_the_loop_over_them_writes_and_reads(
        self, django_pair: Pair, make: Callable[..., Any], rows: str, side: str
    ) -> None:
        kind = import_module(f"{make().Database.__name__}.cursors").SSCursor
        db = make(OPTIONS={"cursorclass": kind})
        messages = Message.objects.using(db.alias)
        messages.bulk_create([Message(id=number, body="x" * 100) for number in range(1, 6)])
        django_pair.wait_caught_up()
        came = []
        with db.use_slave() if side == "slave" else db.use_master(), db.cursor() as cursor:
            with db.use_master():
                assert messages.count() == 5
            found: Any = cursor
            if rows == "iterator":
                found = messages.order_by("id").values_list("id", "body").iterator(chunk_size=1)
            else:
                cursor.execute("SELECT id, REPEAT(body, 10000) FROM project_message ORDER BY id")
            for number, _ in found:
                came.append(number)
                with db.use_master():
                    messages.create(body="more")
                with db.use_slave():
                    assert messages.count() == 5 + len(came)
        assert came == [1, 2, 3, 4, 5]
