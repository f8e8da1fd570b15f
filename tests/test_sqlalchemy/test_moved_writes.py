"""Writes in slave state (S7, S8): the database refuses them, and they run on the master or raise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, literal, select, text, update
from sqlalchemy.orm import Session

import replswitch
from replswitch import MASTER, SLAVE, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack
from replswitch.testing import ReplicatedPair

Make = Callable[..., Any]

SERIALIZABLE = {
    "isolation_level": "SERIALIZABLE",
    "connect_args": {"init_command": "SET SESSION innodb_lock_wait_timeout = 1"},
}

WARNING = "Call use_master() before the write."


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "replswitch")
    return lambda: [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]


def held_back(slaves: int) -> None:
    """If there are slaves, let the option ``rollout`` leave the visitor out."""
    frame = stack()
    assert frame is not None
    frame.scope.held_back = bool(slaves)


def bodies(shop: Any) -> list[str]:
    with shop.Session() as session:
        return list(session.scalars(select(shop.Message.body).order_by(shop.Message.id)))


def fill(shop: Any, *texts: str) -> None:
    with shop.Session.begin() as session:
        session.add_all([shop.Message(id=number, body=body) for number, body in enumerate(texts, 1)])


STATEMENTS: dict[str, Callable[[Any, Session], object]] = {
    "insert": lambda shop, session: session.execute(insert(shop.Message).values(body="new")),
    "insert of many": lambda shop, session: session.execute(insert(shop.Message), [{"body": "new"}, {"body": "new"}]),
    "insert, returning": lambda shop, session: session.scalars(
        insert(shop.Message).values(body="new").returning(shop.Message)
    ).all(),
    "insert as text": lambda shop, session: session.execute(text("INSERT INTO message (body) VALUES ('new')")),
    "insert from a CTE": lambda shop, session: session.execute(
        insert(shop.Message).from_select(["body"], select(select(literal("new").label("body")).cte("fresh").c.body))
    ),
    "update": lambda shop, session: session.execute(update(shop.Message).values(body="new")),
    "update, objects fetched": lambda shop, session: session.execute(
        update(shop.Message).values(body="new"), execution_options={"synchronize_session": "fetch"}
    ),
    "query.update": lambda shop, session: session.query(shop.Message).update({"body": "new"}),
    "delete": lambda shop, session: session.execute(delete(shop.Message)),
    "update of many": lambda shop, session: session.execute(update(shop.Message), [{"id": 1, "body": "new"}]),
    "delete by scalar()": lambda shop, session: session.scalar(text("DELETE FROM message RETURNING id")),
}


class TestCoreStatements:
    @pytest.mark.parametrize("statement", STATEMENTS)
    def test_s8_a_core_write_that_comes_first_moves(
        self, shop: Any, statement: str, warnings: Callable[[], list[str]], replicated_pair: ReplicatedPair
    ) -> None:
        fill(shop, "old")
        replicated_pair.wait_caught_up()
        before = bodies(shop)
        with use_slave(), shop.Session() as session:
            STATEMENTS[statement](shop, session)
            shop.took()
            session.scalars(select(shop.Message)).all()
            session.commit()
            session.scalars(select(shop.Message)).all()
            assert shop.took() == [MASTER, MASTER]  # until the scope ends
        assert bodies(shop) != before
        (warning,) = warnings()
        assert __file__ in warning
        assert "not read" in warning
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message)).all()
        assert shop.took() == [MASTER, SLAVE]  # the first is that of bodies()

    @pytest.mark.parametrize("statement", STATEMENTS)
    def test_s8_a_core_write_after_a_read_raises(
        self, shop: Any, statement: str, replicated_pair: ReplicatedPair
    ) -> None:
        fill(shop, "old")
        replicated_pair.wait_caught_up()
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message.id)).all()
            with pytest.raises(SlaveWriteError, match="may be stale") as caught:
                STATEMENTS[statement](shop, session)
            session.rollback()
            session.scalars(select(shop.Message.id)).all()
        assert bodies(shop) == ["old"]
        assert __file__ in caught.value.place
        assert caught.value.server == shop.db.servers.slaves[0].name

    def test_s8_a_core_write_after_a_read_in_another_transaction_moves(
        self, shop: Any, warnings: Callable[[], list[str]]
    ) -> None:
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message)).all()
            session.commit()
            session.execute(insert(shop.Message).values(body="new"))
            session.commit()
        assert bodies(shop) == ["new"]
        assert "had read from a slave" in warnings()[0]

    def test_s8_after_a_moved_write_that_fails_the_master_serves_the_scope(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                session.execute(insert(shop.Message), [{"id": 1, "body": "one"}, {"id": 1, "body": "two"}])
            session.rollback()
            shop.took()
            session.scalars(select(shop.Message)).all()
        assert shop.took() == [MASTER]

    def test_s8_select_for_update_moves_to_the_master(self, shop: Any, driver: str) -> None:
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message).with_for_update()).all()
        # SQLite has no locks on rows, and SQLAlchemy leaves FOR UPDATE out.
        assert shop.took() == ([SLAVE] if driver == "pysqlite" else [SLAVE, MASTER])

    def test_s7_a_statement_that_would_make_its_connection_writable_moves_to_the_master(
        self, shop: Any, driver: str
    ) -> None:
        if driver != "pysqlite":  # which has none of these
            with use_slave(), shop.Session() as session:
                characteristics = "CHARACTERISTICS AS " if driver.startswith("psycopg") else ""
                session.execute(text(f"SET SESSION {characteristics}TRANSACTION READ WRITE"))
                session.execute(insert(shop.Message).values(body="new"))
                session.commit()
            assert shop.took() == [SLAVE, MASTER, MASTER]

    def test_s8_ddl_moves_to_the_master(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            session.execute(text("CREATE TABLE made_in_slave_state (id INTEGER)"))
            session.commit()
            session.execute(text("DROP TABLE made_in_slave_state"))
            session.commit()
        assert shop.took() == [SLAVE, MASTER, MASTER]

    def test_s8_a_write_on_a_connection_of_the_application_raises(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            connection = session.connection()
            with pytest.raises(SlaveWriteError, match="chosen the connection itself"):
                connection.execute(insert(shop.Message).values(body="new"))
            session.rollback()
        with use_master(), shop.Session() as session:
            session.connection().execute(insert(shop.Message).values(body="new"))
            session.commit()
        assert bodies(shop) == ["new"]

    def test_s8_with_on_slave_write_error_a_core_write_raises(self, make: Make) -> None:
        shop = make(on_slave_write="error")
        with use_slave(), shop.Session() as session, pytest.raises(SlaveWriteError, match='on_slave_write is "error"'):
            session.execute(insert(shop.Message).values(body="new"))
        assert bodies(shop) == []

    def test_s8_a_core_write_in_a_savepoint_moves(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            with session.begin_nested():
                session.execute(insert(shop.Message).values(body="kept"))
            with session.begin_nested() as inner:
                session.execute(insert(shop.Message).values(body="dropped"))
                inner.rollback()
            session.commit()
        assert bodies(shop) == ["kept"]

    def test_s8_a_session_event_sees_both_attempts_of_a_moved_write(self, shop: Any) -> None:
        called: list[str] = []
        with use_slave(), shop.Session() as session:

            @event.listens_for(session, "do_orm_execute")
            def run(state: Any) -> Any:
                called.append(shop.db.state)
                return state.invoke_statement()

            session.execute(insert(shop.Message).values(body="new"))
            session.commit()
        assert called == [SLAVE, SLAVE]
        assert bodies(shop) == ["new"]

    def test_s7_the_engine_of_a_slave_refuses_writes(self, shop: Any) -> None:
        for engine in (shop.db.slaves[0], shop.engines[1]):
            with engine.connect() as connection, pytest.raises(Exception, match=r"read-?only|READ ONLY"):
                connection.execute(insert(shop.Message).values(body="new"))


class TestFlushes:
    def test_s8_a_flush_goes_to_the_master(self, shop: Any, warnings: Callable[[], list[str]]) -> None:
        with use_slave(), shop.Session() as session:
            session.add(shop.Message(body="new"))
            session.flush()
            session.scalars(select(shop.Message)).all()
            session.commit()
            session.scalars(select(shop.Message)).all()
        assert shop.took() == [MASTER, MASTER, MASTER]
        assert bodies(shop) == ["new"]
        (warning,) = warnings()
        assert __file__ in warning
        assert "not read" in warning

    def test_s8_a_flush_after_a_read_raises(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        fill(shop, "old")
        replicated_pair.wait_caught_up()
        with use_slave(), shop.Session() as session:
            message = session.scalars(select(shop.Message)).one()
            message.body = "lost update"
            with pytest.raises(SlaveWriteError, match="may be stale") as caught:
                session.commit()
            session.rollback()
            assert __file__ in caught.value.place
            session.refresh(message)
            message.body = "lost update"
            with pytest.raises(SlaveWriteError):
                session.flush()
        assert bodies(shop) == ["old"]

    def test_s8_a_flush_after_a_read_in_another_transaction_moves(
        self, shop: Any, warnings: Callable[[], list[str]]
    ) -> None:
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message)).all()
            session.commit()
            session.add(shop.Message(body="new"))
            session.commit()
        assert bodies(shop) == ["new"]
        assert "had read from a slave" in warnings()[0]

    def test_s8_a_flush_after_a_read_on_the_connection_of_the_session_raises(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            session.connection().execute(select(shop.Message))
            session.add(shop.Message(body="new"))
            with pytest.raises(SlaveWriteError, match="may be stale"):
                session.flush()

    def test_s8_with_on_slave_write_force_a_flush_after_a_read_moves(
        self, make: Make, warnings: Callable[[], list[str]], replicated_pair: ReplicatedPair
    ) -> None:
        shop = make(on_slave_write="force")
        fill(shop, "old", "dead")
        replicated_pair.wait_caught_up()
        shop.took()
        with use_slave(), shop.Session() as session:
            first, second = session.scalars(select(shop.Message).order_by(shop.Message.id))
            first.body = "new"
            session.delete(second)
            session.commit()
            assert first.body == "new"
        assert shop.took() == [SLAVE, MASTER, MASTER, MASTER]
        assert bodies(shop) == ["new"]
        assert "had read from a slave" in warnings()[0]

    @pytest.mark.parametrize("slaves", [0, 1])
    @pytest.mark.parametrize("driver", ["mariadb"], indirect=True)
    def test_s8_a_forced_write_does_not_wait_for_locks_of_its_own_reads(self, make: Make, slaves: int) -> None:
        shop = make(slaves=slaves, engine=SERIALIZABLE, on_slave_write="force")
        fill(shop, "one", "two", "three")
        with use_slave(), shop.Session() as session:
            held_back(slaves)
            session.get_one(shop.Message, 1).body = "flushed"
            session.commit()
        with use_slave(), shop.Session() as session:
            held_back(slaves)
            with session.begin_nested():
                session.get_one(shop.Message, 2).body = "flushed in a savepoint"
            session.commit()
        with use_slave(), shop.Session() as session:
            held_back(slaves)
            connection = session.connection()
            connection.execute(select(shop.Message))
            with use_master():
                session.execute(update(shop.Message).where(shop.Message.id == 3).values(body="in master state"))
            assert connection.scalar(select(literal(7))) == 7, "the application still holds this connection"
            session.commit()
        assert bodies(shop) == ["flushed", "flushed in a savepoint", "in master state"]

    def test_s8_an_autoflush_goes_to_the_master(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            session.add(shop.Message(body="new"))
            assert session.scalars(select(shop.Message.body)).all() == ["new"]
            session.commit()
        assert shop.took() == [MASTER, MASTER]

    @pytest.mark.parametrize(
        "write",
        [
            lambda shop, session: session.bulk_save_objects([shop.Message(body="new")]),
            lambda shop, session: session.bulk_insert_mappings(shop.Message, [{"body": "new"}]),
        ],
        ids=["bulk_save_objects", "bulk_insert_mappings"],
    )
    def test_s8_bulk_operations_go_to_the_master(self, shop: Any, write: Callable[[Any, Session], None]) -> None:
        with use_slave(), shop.Session() as session:
            write(shop, session)
            session.commit()
        assert bodies(shop) == ["new"]

    def test_s8_a_flush_with_nothing_to_write_moves_nothing(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            session.flush()
            session.scalars(select(shop.Message)).all()
            session.commit()
            session.scalars(select(shop.Message)).all()
        assert shop.took() == [SLAVE, SLAVE]

    def test_s8_a_flush_of_unchanged_objects_moves_nothing(
        self, shop: Any, warnings: Callable[[], list[str]], replicated_pair: ReplicatedPair
    ) -> None:
        fill(shop, "old")
        replicated_pair.wait_caught_up()
        shop.took()
        with use_slave(), shop.Session() as session:
            message = session.scalars(select(shop.Message)).one()
            message.body = "old"
            assert session.dirty
            assert session.scalars(select(shop.Message.body)).all() == ["old"]
            session.commit()
        assert shop.took() == [SLAVE, SLAVE]
        assert not warnings()

    def test_s8_with_on_slave_write_error_a_flush_raises(self, make: Make) -> None:
        shop = make(on_slave_write="error")
        with use_slave(), shop.Session() as session:
            session.scalars(select(shop.Message)).all()
            session.add(shop.Message(body="new"))
            with pytest.raises(SlaveWriteError, match='on_slave_write is "error"'):
                session.commit()
            session.rollback()
            session.scalars(select(shop.Message)).all()
        assert bodies(shop) == []
        with use_master(), shop.Session() as session:
            session.add(shop.Message(body="new"))
            session.commit()

    def test_a_flush_in_slave_state_is_counted_as_a_moved_write(self, shop: Any) -> None:
        key = (shop.db.database.name, "")
        before = replswitch.stats()["moved-write"].get(key, 0)
        with use_slave(), shop.Session() as session:
            session.add(shop.Message(body="new"))
            session.commit()
        assert replswitch.stats()["moved-write"][key] == before + 1


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)
class TestLateRefusals:
    """A procedure that returns rows and then writes: the refusal arrives after the rows."""

    @pytest.fixture(autouse=True)
    def _procedure(self, shop: Any, replicated_pair: ReplicatedPair) -> None:
        with shop.master.begin() as connection:
            connection.exec_driver_sql("DROP PROCEDURE IF EXISTS show_and_add")
            connection.exec_driver_sql(
                "CREATE PROCEDURE show_and_add() BEGIN SELECT 7; INSERT INTO message (body) VALUES ('new'); END"
            )
        replicated_pair.wait_caught_up()

    def test_s8_a_write_refused_after_rows_raises(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session:
            with pytest.raises(SlaveWriteError, match="already returned rows") as caught:
                session.execute(text("CALL show_and_add()"))
            session.rollback()
            assert __file__ in caught.value.place
        assert bodies(shop) == []

    def test_s8_a_late_refusal_on_a_connection_of_the_application_raises(self, shop: Any) -> None:
        with use_slave(), shop.Session() as session, pytest.raises(SlaveWriteError):
            session.connection().execute(text("CALL show_and_add()"))
        assert bodies(shop) == []

    def test_a_procedure_that_writes_after_its_rows_writes_on_the_master(self, shop: Any) -> None:
        with use_master(), shop.Session() as session:
            assert session.scalar(text("CALL show_and_add()")) == 7
            session.commit()
        assert bodies(shop) == ["new"]


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)
def test_s8_a_write_after_a_change_of_the_slave_s_session_raises(shop: Any) -> None:
    with use_slave(), shop.Session() as session:
        session.execute(text("SET @author = 'Ada'"))
        with pytest.raises(SlaveWriteError, match="changed the session"):
            session.execute(text("INSERT INTO message (body) VALUES (@author)"))
    assert bodies(shop) == []
    with use_slave(), shop.Session() as session:
        session.execute(text("INSERT INTO message (body) VALUES ('new')"))
        session.commit()
    assert bodies(shop) == ["new"]


def test_m1_a_write_in_an_unrecorded_block_makes_no_marker(shop: Any, replicated_pair: ReplicatedPair) -> None:
    with use_slave(), shop.Session() as session:
        with replswitch.unrecorded():
            session.execute(insert(shop.Message).values(body="seen"))
            session.commit()
        frame = stack()
        assert frame is not None
        assert frame.scope.all_written() is None
        with use_master():
            session.execute(insert(shop.Message).values(body="new"))
            session.commit()
        assert frame.scope.all_written() is not None
