"""What RoutingSession adds to SQLAlchemy's session: `get_bind` for a select, in microseconds; and a whole query.

On files of SQLite, where a query is quicker than on any server, and what is added weighs the most. In a transaction
SQLAlchemy's own `get_bind` takes half as long again as before it, so what is added there is held against that.
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cost.ratio import Row, measure, ratio
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cost.ratio import Batch, Times

ROUNDS = 400

LIMIT = 0.3
"""Microseconds that `get_bind` may take longer."""


class Base(DeclarativeBase):
    """The models."""


class Note(Base):
    """One model."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)


STATEMENT = select(Note)
MAPPER = Note.__mapper__


def binds(session: Session) -> Batch:
    """Ask for the bind of a select, as `Session.execute` does."""

    def batch(number: int) -> None:
        for _ in repeat(None, number):
            session.get_bind(clause=STATEMENT, mapper=MAPPER)

    return batch


def queries(session: Session) -> Batch:
    """Run a select, in the transaction that is open."""

    def batch(number: int) -> None:
        for _ in repeat(None, number):
            session.scalars(STATEMENT).all()

    return batch


def in_state(state: Callable[[], Any], side: Callable[[Session], Batch], session: Session) -> Batch:
    """Return a batch whose block is one state. A transaction of the session that has begun continues."""
    batch = side(session)

    def block(number: int) -> None:
        with state():
            batch(number)

    return block


def begun(state: Callable[[], Any], session: Session) -> Session:
    """Begin a session's transaction."""
    with state():
        session.scalars(STATEMENT).all()
    return session


def added(name: str, times: Times, ours: str, against: str) -> Row:
    """Make a row of the microseconds that one side takes longer than another: the median of the rounds."""
    above = [(a - b) * 1e6 for a, b in zip(times[ours], times[against], strict=True)]
    low, middle, high = statistics.quantiles(above)
    a, b = (statistics.median(times[side]) * 1e6 for side in (ours, against))
    detail = f"µs: {a:.2f} against {b:.2f}; half the rounds {low:.2f} to {high:.2f}"
    return Row(name, middle, LIMIT, detail)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{name}.db") for name in ("stock", "master", "slave")]
        stock, master, slave = engines = [create_engine(f"sqlite:///{file}") for file in files]
        for engine in engines:
            Base.metadata.create_all(engine)
        replicate(master, [slave])
        in_master, in_slave = begun(use_master, RoutingSession(master)), begun(use_slave, RoutingSession(master))
        times = measure(
            {
                "stock": binds(Session(stock)),
                "stock begun": in_state(use_slave, binds, begun(use_slave, Session(stock))),
                "nobody": binds(RoutingSession(master)),
                "other": binds(RoutingSession(stock)),
                "master": in_state(use_master, binds, in_master),
                "slave": in_state(use_slave, binds, in_slave),
                "before": in_state(use_slave, binds, RoutingSession(master)),
            },
            ROUNDS,
        )
        yield added("get_bind adds, no state set", times, "nobody", "stock")
        yield added("  in master state, in a transaction", times, "master", "stock begun")
        yield added("  in slave state, in a transaction", times, "slave", "stock begun")
        yield added("  in slave state, before the transaction", times, "before", "stock")
        yield added("  for an engine that is not replicated", times, "other", "stock")
        whole = measure(
            {
                "stock": in_state(use_slave, queries, begun(use_slave, Session(stock))),
                "master": in_state(use_master, queries, in_master),
                "slave": in_state(use_slave, queries, in_slave),
            },
            ROUNDS,
        )
        yield ratio("a query through RoutingSession / the stock one, master", whole, "master", "stock")
        yield ratio("  in slave state", whole, "slave", "stock")
        for session in (in_master, in_slave):
            session.close()
        for engine in engines:
            engine.dispose()
