"""One alias for both sides: the switch, its effect, and the log of queries."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from tests.test_django.backend.asking import ask, default_with, on, seen, sides
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair
from tests.test_django.project.models import Message, Reply, Tag

from django_replswitch.decorators import use_master, use_slave
from replswitch import MASTER, SLAVE, RevertError

Make = Callable[..., Any]


@pytest.fixture
def stale(django_pair: Pair, db: Any) -> Any:
    """The connection over a slave that has nothing, while the master has the message "new"."""
    django_pair.stop_slave()
    Message.objects.create(body="new")
    return db


class TestVerbs:
    def test_s1_without_a_switch_reads_are_on_the_master(self, stale: Any) -> None:
        assert (stale.state, seen()) == (MASTER, ["new"])
        assert sides(stale)[-1] == MASTER

    def test_s2_nested_blocks_restore_the_state_outside(self, stale: Any) -> None:
        with stale.use_slave():
            assert (stale.state, seen()) == (SLAVE, [])
            with stale.use_master():
                assert seen() == ["new"]
            assert stale.state == SLAVE
            assert seen() == []
        assert seen() == ["new"]

    def test_s2_a_use_call_takes_effect_at_once_and_revert_undoes_the_call(self, stale: Any) -> None:
        stale.use_slave()
        assert seen() == []
        stale.use_master()
        assert seen() == ["new"]
        stale.revert()
        assert stale.state == SLAVE
        assert seen() == []
        stale.revert()
        assert seen() == ["new"]
        with pytest.raises(RevertError):
            stale.revert()

    def test_django_db_connection_has_the_switch(self, stale: Any) -> None:
        proxy: Any = connection
        with proxy.use_slave():
            assert (proxy.state, seen()) == (SLAVE, [])
        assert not proxy.state_change_disabled

    def test_state_change_disabled_keeps_the_master(self, stale: Any) -> None:
        stale.state_change_disabled = True
        with stale.use_slave(), use_slave():
            assert (stale.state, seen()) == (MASTER, ["new"])
        stale.use_slave()
        stale.revert()
        stale.state_change_disabled = False
        with stale.use_slave():
            assert seen() == []

    def test_s4_switching_an_alias_does_not_switch_other_aliases(self, stale: Any) -> None:
        other: Any = connections["other"]
        Message.objects.using("other").create(body="elsewhere")
        with other.use_slave():
            assert (stale.state, other.state) == (MASTER, SLAVE)
            assert seen() == ["new"]
            assert Message.objects.using("other").count() == 0
        with stale.use_slave():
            assert seen() == []
            assert Message.objects.using("other").count() == 1

    def test_s4_decorators_switch_every_alias(self, stale: Any) -> None:
        @use_slave
        def read() -> tuple[int, int]:
            return Message.objects.count(), Message.objects.using("other").count()

        Message.objects.using("other").create(body="elsewhere")
        assert read() == (0, 0)
        with stale.use_slave(), use_master():
            assert seen() == ["new"]


class TestOneAlias:
    """No code has to name a server: there is only one alias."""

    def test_raw_cursors_and_raw_queries_run_in_the_current_state(self, stale: Any) -> None:
        with stale.use_slave():
            assert ask(stale, "SELECT COUNT(*) FROM project_message") == 0
            assert list(Message.objects.raw("SELECT * FROM project_message")) == []

    def test_related_managers_run_in_the_current_state(self, django_pair: Pair, db: Any) -> None:
        message = Message.objects.create(body="a")
        django_pair.wait_caught_up()
        django_pair.stop_slave()
        Reply.objects.create(message=message, body="late")
        message.tags.add(Tag.objects.create(name="late"))
        assert message._state.db == "default"
        with db.use_slave():
            fetched = Message.objects.get(pk=message.pk)
            for of in (message, fetched):
                assert (of.reply_set.count(), of.tags.count(), of._state.db) == (0, 0, "default")
            assert Message.objects.prefetch_related("tags", "reply_set").get().body == "a"
        assert (fetched.reply_set.count(), fetched.tags.count()) == (1, 1)

    def test_a_queryset_runs_in_the_state_in_which_it_is_evaluated(self, stale: Any) -> None:
        with stale.use_slave():
            lazy = Message.objects.all()
        assert len(lazy) == 1

    def test_s6_a_cursor_made_before_a_switch_uses_the_new_state(self, stale: Any) -> None:
        with stale.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM project_message")
            with stale.use_slave():
                assert cursor.fetchone() == (1,)  # from the link on which it was executed
                cursor.execute("SELECT COUNT(*) FROM project_message")
            assert cursor.fetchone() == (0,)

    def test_s6_an_iterator_is_read_from_the_link_it_began_on(self, django_pair: Pair, db: Any) -> None:
        Message.objects.bulk_create(Message(body=str(number)) for number in range(5))
        django_pair.wait_caught_up()
        with db.use_slave():
            rows = Message.objects.order_by("pk").iterator(chunk_size=2)
            found = [next(rows).body]
            with db.use_master():
                Message.objects.all().delete()
            found += [row.body for row in rows]
        assert found == ["0", "1", "2", "3", "4"]

    def test_a_write_appears_on_the_slave_after_its_lag(self, django_pair: Pair, db: Any) -> None:
        django_pair.lag = 60
        Message.objects.create(body="new")
        with db.use_slave():
            assert seen() == []
        django_pair.lag = 0
        django_pair.wait_caught_up()
        with db.use_slave():
            assert seen() == ["new"]


class TestQueries:
    def test_queries_have_their_side_and_server(self, django_pair: Pair, db: Any) -> None:
        seen()
        master = db.queries[-1]
        with db.use_slave():
            seen()
        slave = db.queries[-1]
        assert (master["db"], slave["db"]) == (MASTER, SLAVE)
        assert master["server"] == f"127.0.0.1:{django_pair.master['port']}"
        assert slave["server"] == f"127.0.0.1:{django_pair.slaves[0]['port']}"
        assert slave.get("db") == SLAVE
        assert slave.get("nothing", 1) == 1
        with pytest.raises(KeyError):
            slave["nothing"]

    def test_queries_have_the_keys_of_django_s_own(self, db: Any) -> None:
        seen()
        assert set(db.queries[-1]) == {"sql", "time"}

    def test_capture_queries_context_has_the_queries_of_both_servers(self, db: Any) -> None:
        db.force_debug_cursor = False
        for warm_up in (db.use_slave, db.use_master):
            with warm_up():
                seen()
        with CaptureQueriesContext(db) as captured, db.use_slave():
            seen()
            with db.use_master():
                seen()
        assert [query["db"] for query in captured] == [SLAVE, MASTER]
        assert [query["db"] for query in captured.captured_queries] == [SLAVE, MASTER]

    def test_s5_begin_is_shown_where_the_first_statement_has_sent_it(self, django_pair: Pair, db: Any) -> None:
        slave = f"127.0.0.1:{django_pair.slaves[0]['port']}"
        seen()
        with db.use_slave():
            with CaptureQueriesContext(db) as captured, transaction.atomic():
                assert [(query["db"], query["server"]) for query in captured] == [(SLAVE, "")]
                with transaction.atomic():
                    seen()
            assert (captured[0]["sql"], captured[len(captured) - 1]["sql"]) == ("BEGIN", "COMMIT")
            assert {(query["db"], query["server"]) for query in captured} == {(SLAVE, slave)}
            with CaptureQueriesContext(db) as captured, transaction.atomic():
                pass
            with db.use_master(), transaction.atomic():
                seen()
        assert [(query["db"], query["server"]) for query in captured] == [(SLAVE, "")]
        assert db.queries[-3]["sql"] == "BEGIN"
        assert db.queries[-3]["db"] == MASTER

    def test_a_moved_write_is_in_the_queries_once_with_the_master(self, db: Any) -> None:
        with db.use_slave():
            seen()
            with CaptureQueriesContext(db) as captured:
                Message.objects.create(body="a")
        assert [query["db"] for query in captured if query["sql"].startswith("INSERT")] == [MASTER]


class TestServers:
    """S6, S7, S10."""

    def test_s7_a_slave_link_is_read_only(self, django_pair: Pair, db: Any) -> None:
        assert ask(db, "SELECT @@tx_read_only") == 0
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only") == 1

    def test_s7_a_slave_link_is_read_only_with_options_of_the_user(self, make: Make) -> None:
        db = make(OPTIONS=dialect.variable("me", 7))
        with db.use_slave():
            assert ask(db, "SELECT @@tx_read_only, @me") == (1, 7)
        assert ask(db, "SELECT @@tx_read_only, @me") == (0, 7)

    def test_settings_that_a_slave_leaves_out_are_those_of_the_master(self, django_pair: Pair, make: Make) -> None:
        port = django_pair.slaves[0]["port"]
        db = make(SLAVES=[{"PORT": port}], OPTIONS=dialect.variable("me", 7))
        with db.use_slave():
            found = ask(db, "SELECT @@port, DATABASE(), CURRENT_USER(), @me")
        assert found == (port, "shop", "shop@%", 7)

    def test_a_slave_may_have_settings_of_its_own(self, django_pair: Pair, make: Make) -> None:
        slave = {"PORT": django_pair.slaves[0]["port"], "NAME": "test_other"}
        db = make(SLAVES=[{**slave, "OPTIONS": dialect.variable("me", 8)}])
        with db.use_slave():
            assert ask(db, "SELECT DATABASE(), @me") == ("test_other", 8)
        assert ask(db, "SELECT DATABASE(), @me") == ("shop", None)

    @pytest.mark.parametrize("slaves", [{"SLAVES": []}, {"SLAVES": [{}]}])
    def test_s10_without_slaves_a_read_only_link_to_the_master_serves(
        self, django_pair: Pair, make: Make, slaves: dict[str, Any]
    ) -> None:
        db = make(**slaves)
        Message.objects.using(db.alias).create(body="a")
        with db.use_slave():
            assert Message.objects.using(db.alias).count() == 1
            assert sides(db)[-1] == SLAVE
            assert ask(db, "SELECT @@tx_read_only, @@port") == (1, django_pair.master["port"])
            Message.objects.using(db.alias).create(body="b")
            assert sides(db)[-1] == MASTER
        assert on(django_pair, "master", "SELECT COUNT(*) FROM project_message") == 2

    def test_slaves_must_be_a_list_of_settings(self, make: Make) -> None:
        for wrong in ({"HOST": "slave1.db"}, [7], None):
            with pytest.raises(ImproperlyConfigured, match=r'SLAVES"\] must be a list'):
                make(SLAVES=wrong)

    def test_s6_one_slave_serves_all_reads_of_a_scope(self, django_pair: Pair, make: Make) -> None:
        db = make(SLAVES=five_slaves(django_pair))
        seen_in_scopes = set()
        for _ in range(30):
            with db.use_slave():
                served_by = {ask(db, "SELECT @me") for _ in range(3)}
            assert len(served_by) == 1
            seen_in_scopes |= served_by
        assert len(seen_in_scopes) > 1

    def test_s6_one_slave_serves_all_threads_of_a_scope(self, django_pair: Pair, db: Any) -> None:
        found = []

        def read() -> None:
            found.append(ask(connections["default"], "SELECT @me"))
            connections["default"].close()

        with default_with(*five_slaves(django_pair)), use_slave():
            read()
            for _ in range(6):
                thread = threading.Thread(target=contextvars.copy_context().run, args=[read])
                thread.start()
                thread.join()
            read()
        assert len(found) == 8
        assert len(set(found)) == 1, found


def five_slaves(pair: Pair) -> list[dict[str, Any]]:
    """The slave five times; it calls itself otherwise each time."""
    port = pair.slaves[0]["port"]
    return [{"PORT": port, "OPTIONS": dialect.variable("me", number)} for number in range(5)]
