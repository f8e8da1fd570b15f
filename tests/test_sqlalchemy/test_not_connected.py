"""Sessions that have chosen a server but do not connect to it, or whose connection is invalid."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import ORMExecuteState, Session

from replswitch import MASTER, SLAVE
from replswitch.decorators import use_master, use_slave


def read(shop: Any, session: Session) -> int:
    return len(session.scalars(select(shop.Message)).all())


def fail_once(engine: Engine) -> None:
    """Let the next connection of a session to a server fail, before its transaction begins."""
    failures = [RuntimeError("raised by the application")]

    @event.listens_for(engine, "engine_connect")
    def fail(_: Connection) -> None:
        if failures:
            raise failures.pop()


@pytest.mark.parametrize("side", [SLAVE, MASTER])
def test_after_an_error_in_a_listener_of_engine_connect_the_next_statement_runs(shop: Any, side: str) -> None:
    fail_once(shop.engines[side == SLAVE])
    with shop.db.use_slave() if side == SLAVE else shop.db.use_master(), shop.Session() as session:
        with pytest.raises(RuntimeError, match="by the application"):
            read(shop, session)
        assert read(shop, session) == 0
    assert shop.took() == [side]


def test_get_bind_in_an_event_keeps_no_connection_to_the_slave_if_the_master_then_serves(shop: Any) -> None:
    slave = shop.engines[1]
    with shop.db.use_slave(), shop.Session() as session:

        @event.listens_for(session, "do_orm_execute")
        def choose(_: ORMExecuteState) -> None:
            assert session.get_bind() is shop.db.slaves[0]
            shop.db.use_master()

        assert read(shop, session) == 0
        assert slave.pool.checkedout() == 0
        shop.db.revert()
    assert shop.took() == [MASTER]


def test_s5_without_a_rollback_no_server_serves_a_session_whose_connection_is_invalid(shop: Any) -> None:
    with use_slave(), shop.Session() as session:
        with use_master():
            session.execute(insert(shop.Message).values(body="lost"))
            session.connection().invalidate()
        for _ in range(2):
            with pytest.raises(PendingRollbackError):
                read(shop, session)
        session.rollback()
        assert read(shop, session) == 0
    assert len(shop.took()) == 2
