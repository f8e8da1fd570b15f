"""Sessions on one SQLite file: reads in slave state must not block writes (S10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker
from tests.test_sqlalchemy.conftest import Base, Message

from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate

ROWS = 300


@pytest.fixture(params=["no slaves", "same file"])
def make_session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Return a factory of sessions on a file with rows. A write waits a tenth of a second for readers."""
    url, options = f"sqlite:///{tmp_path / 'shop.db'}", {"connect_args": {"timeout": 0.1}}
    master = create_engine(url, **options)
    slaves = [create_engine(url, **options)] if request.param == "same file" else []
    db = replicate(master, slaves)
    Base.metadata.create_all(master)
    made = sessionmaker(master, class_=RoutingSession)
    with made() as session:
        session.add_all([Message(body="x") for _ in range(ROWS)])
        session.commit()
    yield made
    for engine in {master, *db.slaves}:
        engine.dispose()


def write(session: Any) -> None:
    with use_master():
        session.add(Message(body="y"))
        session.commit()


def test_s10_another_session_writes_while_rows_of_a_slave_are_still_read(make_session: Any) -> None:
    with use_slave(), make_session() as session, make_session() as other:
        rows = iter(session.scalars(select(Message).execution_options(yield_per=2)))
        next(rows)
        write(other)
        assert len(list(rows)) == ROWS - 1


def test_s10_another_session_writes_while_one_that_has_read_from_a_slave_is_open(make_session: Any) -> None:
    with use_slave(), make_session() as session, make_session() as other:
        session.scalars(select(Message)).all()
        write(other)
        assert session.scalar(select(func.count(Message.id))) == ROWS + 1


def test_s10_a_session_writes_while_its_rows_of_a_slave_are_still_read(make_session: Any) -> None:
    with use_slave(), make_session() as session:
        rows = iter(session.scalars(select(Message).execution_options(yield_per=2)))
        next(rows)
        write(session)


def test_s10_a_session_can_be_used_after_a_statement_has_failed_on_a_slave(make_session: Any) -> None:
    with use_slave(), make_session() as session:
        session.scalars(select(Message)).all()
        with pytest.raises(OperationalError):
            session.execute(text("SELECT nothing FROM nowhere"))
        with session.begin_nested():
            assert session.scalar(select(func.count(Message.id))) == ROWS
