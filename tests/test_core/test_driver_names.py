"""Attributes of the driver's connection and cursor beyond PEP 249: present, or an error with the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from replswitch import SLAVE, Connection
from replswitch.state import stack

if TYPE_CHECKING:
    from tests.test_core.conftest import Make

    from replswitch.testing import ReplicatedPair

on_mysql = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)
pytestmark = pytest.mark.filterwarnings("ignore:literal:DeprecationWarning")  # a warning of PyMySQL
THREAD = "SELECT CONNECTION_ID()"


def one(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        (value,) = cursor.fetchone()
        return value


@on_mysql
def test_s6_driver_attributes_that_are_the_same_on_all_links_are_available(db: Any) -> None:
    for state in (db.use_master, db.use_slave):
        with state():
            assert db.literal("it's") in {"'it\\'s'", b"'it\\'s'"}
            if hasattr(db, "escape_string"):  # mysqlclient and PyMySQL 1.1 have it
                assert db.escape_string("it's") in {"it\\'s", b"it\\'s"}
            assert db.get_server_info().endswith(one(db, "SELECT VERSION()"))
            assert "utf8" in db.character_set_name()
            assert db.cursor().mogrify("SELECT %s", ("it's",)) == "SELECT 'it\\'s'"
            assert "127.0.0.1" in db.get_host_info()
    assert db.open


@on_mysql
def test_s6_thread_id_returns_the_id_of_the_link_for_the_next_statement(db: Any) -> None:
    found = set()
    for state in (db.use_master, db.use_slave):
        with state():
            assert db.thread_id() == one(db, THREAD)
            found.add((db.queries[-1]["server"], db.thread_id()))
    assert len(found) == 2


@on_mysql
def test_s5_ping_and_literal_do_not_join_a_transaction(db: Any) -> None:
    db.begin()
    with db.use_slave():
        db.literal("x")
        db.ping()
        frame = stack()
        assert frame is not None
        assert frame.scope.decisions == ()
    assert db._workers.state().route.block.links == []
    db.rollback()


def test_open_is_false_after_close_and_a_ping_raises(make: Make) -> None:
    db = make()
    assert db.open
    db.close()
    assert not db.open
    with pytest.raises(db.InterfaceError, match="closed"):
        db.ping()


def test_f1_a_ping_replaces_a_lost_link(db: Any, replicated_pair: ReplicatedPair) -> None:
    with db.use_slave():
        db.ping()
        replicated_pair.kill("slave")
        replicated_pair.start("slave")
        db.ping()
        assert one(db, "SELECT COUNT(*) FROM message") == 0
        assert db.queries[-1]["db"] == SLAVE


def test_f1_a_ping_in_slave_state_succeeds_when_the_slave_is_dead(db: Any, replicated_pair: ReplicatedPair) -> None:
    with db.use_slave():
        db.ping()
        replicated_pair.kill("slave")
        db.ping()


@on_mysql
def test_s5_a_ping_in_a_transaction_raises_after_its_link_was_lost(db: Any, replicated_pair: ReplicatedPair) -> None:
    db.begin()
    with db.use_slave():
        one(db, THREAD)
        replicated_pair.kill("slave")
        with pytest.raises(db.Error):
            db.ping()
    db.rollback()


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("select_db", 'Give "database" to connect()'),
        ("insert_id", "lastrowid"),
        ("affected_rows", "rowcount"),
        ("set_charset", '"charset"'),
        ("query", "run a statement with a cursor"),
        ("create_function", "several connections"),
    ],
)
def test_an_attribute_of_a_single_link_is_an_error_that_says_what_to_use_instead(db: Any, name: str, cure: str) -> None:
    assert not hasattr(db, name)
    with pytest.raises(AttributeError) as caught:
        getattr(db, name)
    assert f"no attribute '{name}'" in str(caught.value)
    assert cure in str(caught.value)


def test_an_attribute_of_a_cursor_before_execute_is_an_error_that_says_what_to_do(db: Any) -> None:
    cursor = db.cursor()
    assert not hasattr(cursor, "rownumber")
    with pytest.raises(AttributeError, match=r"not executed.*'rownumber'.*execute\(\)"):
        cursor.rownumber  # noqa: B018 - reading the attribute raises the error
