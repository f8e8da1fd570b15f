"""Tools that wrap the driver's ``connect()``, as OpenTelemetry does (F6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest

import replswitch
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.testing import ReplicatedPair


class Proxy:
    """The wrapper that such a tool puts around a connection or a cursor. It passes every attribute on."""

    def __init__(self, wrapped: Any, spans: list[str]) -> None:
        vars(self).update(__wrapped__=wrapped, spans=spans)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.__wrapped__.close()

    def cursor(self, *args: Any) -> Any:
        return Proxy(self.__wrapped__.cursor(*args), self.spans)

    def execute(self, sql: str, *args: Any) -> Any:
        self.spans.append(sql)
        return self.__wrapped__.execute(sql, *args)


@pytest.fixture(params=["pymysql", "mysqlclient", "sqlite3"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver that a tool can wrap."""
    return str(request.param)


@pytest.fixture
def pair(driver: str, request: pytest.FixtureRequest) -> ReplicatedPair:
    """A pair for the driver."""
    pair: ReplicatedPair = request.getfixturevalue("sqlite_pair" if driver == "sqlite3" else "mariadb_pair")
    return pair


@pytest.fixture
def spans(driver: str, pair: ReplicatedPair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that a tool sees after wrapping the driver's ``connect()``."""
    module: Any = load_driver(driver).module
    spans: list[str] = []
    connect: Callable[..., Any] = module.connect
    monkeypatch.setattr(module, "connect", lambda *args, **settings: Proxy(connect(*args, **settings), spans))
    return spans


def test_f6_a_tool_that_wraps_the_driver_sees_the_statements_and_changes_nothing(
    pair: ReplicatedPair, driver: str, spans: list[str]
) -> None:
    with replswitch.connect(pair.master, pair.slaves, driver=driver) as db:
        with use_master(), db.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS seen")
            cursor.execute("CREATE TABLE seen (n INTEGER)")
        pair.wait_caught_up()
        with use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM seen")
            assert cursor.fetchone() == (0,)
            cursor.execute("INSERT INTO seen VALUES (1)")  # the slave refuses it, and it moves to the master
            frame = stack()
            assert frame is not None
            frame.scope.settle()
            assert frame.scope.wrote is not None
            assert frame.scope.wrote.positions, "the position of the write is known"
    assert [sql.split()[0] for sql in spans if "seen" in sql] == ["DROP", "CREATE", "SELECT", "INSERT", "INSERT"]
