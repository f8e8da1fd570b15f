"""Databases without a driver in replswitch: their slaves are made read-only, or refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Dialect, Engine, make_url
from sqlalchemy.dialects.mssql.base import MSDialect
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.pool import QueuePool

from replswitch import SLAVE, ConfigurationError
from replswitch.drivers import Written
from replswitch.drivers.unknown import UnknownDriver
from replswitch.engine.servers import Server
from replswitch.positions import clock
from replswitch.sqlalchemy import replicate
from replswitch.sqlalchemy.opening import Opener

MODULE: Any = ModuleType("stand_in")
MODULE.paramstyle = "pyformat"
MODULE.Error = Exception


class StandIn:
    """A connection as PostgreSQL's drivers have it: in a transaction from the first statement on.

    A rollback takes back what was SET in it: https://www.postgresql.org/docs/current/sql-set.html.
    """

    def __init__(self) -> None:
        self.is_read_only = self._was_read_only = False

    def cursor(self) -> StandIn:
        return self

    def execute(self, statement: str) -> None:
        assert statement == "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
        self.is_read_only = True

    def commit(self) -> None:
        self._was_read_only = self.is_read_only

    def rollback(self) -> None:
        self.is_read_only = self._was_read_only

    def close(self) -> None:
        pass


def engine_of(dialect: Dialect) -> Engine:
    pool = QueuePool(StandIn, dialect=dialect)  # type: ignore[arg-type]  # a stand-in
    return Engine(pool, dialect, make_url(f"{dialect.name}://slave.db/shop"))


def test_s7_a_postgresql_slave_stays_read_only_after_a_rollback() -> None:
    dialect = PGDialect(dbapi=MODULE)  # type: ignore[no-untyped-call]  # it has no types
    dialect.driver = "stand_in"
    engine = engine_of(dialect)
    Opener(UnknownDriver(dialect), Server("slave.db", SLAVE)).listen(engine)
    raw: Any = engine.pool.connect().dbapi_connection
    assert raw.is_read_only
    raw.rollback()
    assert raw.is_read_only


def test_s7_a_dialect_without_read_only_sessions_is_refused() -> None:
    dialect = MSDialect(dbapi=MODULE)  # type: ignore[no-untyped-call]  # likewise
    dialect.driver = "stand_in"
    engine = engine_of(dialect)
    with pytest.raises(ConfigurationError, match="mssql"):
        replicate(engine)


def test_p3_every_commit_of_an_unknown_driver_counts_as_a_write_and_one_log_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock._logged.clear()
    dialect = PGDialect(dbapi=MODULE)  # type: ignore[no-untyped-call]  # likewise
    dialect.driver = "stand_in"
    driver = UnknownDriver(dialect)
    assert [driver.writes_of(None).pop_write_status() for _ in range(2)] == [Written.YES] * 2
    (line,) = [record.getMessage() for record in caplog.records if record.name == "replswitch.positions"]
    assert "stand_in" in line
