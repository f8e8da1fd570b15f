"""The spans that OpenTelemetry's instrumentations make for statements say which server ran them, and why (F6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.pymysql import PyMySQLInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from tests.test_telemetry.conftest import Make, ask
from tests.test_telemetry.spans import Labels, Traced, traced

import replswitch
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import Driver, load_driver
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.telemetry.opentelemetry import ReplSwitchInstrumentor
from replswitch.telemetry.running import running, watching
from replswitch.testing import MariaDBPair, ReplicatedPair


def mysqlclient() -> Any:
    from opentelemetry.instrumentation.mysqlclient import MySQLClientInstrumentor  # noqa: PLC0415 - it imports MySQLdb

    return MySQLClientInstrumentor()


DRIVERS: dict[str, tuple[str, Any]] = {
    "pymysql": ("mariadb_pair", PyMySQLInstrumentor),
    "mysqlclient": ("mariadb_pair", mysqlclient),
    "psycopg": ("postgresql_pair", PsycopgInstrumentor),
}


def expected(pair: ReplicatedPair, *reasons: str) -> list[Labels]:
    """What the spans of statements must say, if the statements were served for these reasons."""
    labels = []
    for reason in reasons:
        side = "slave" if reason == "use_slave" else "master"
        server = pair.slaves[0] if side == "slave" else pair.master
        labels.append(Labels(side, reason, "127.0.0.1", server["port"]))
    return labels


@pytest.fixture
def off() -> Iterator[None]:
    """After the test, no tool watches."""
    yield
    assert not watching.on
    assert running.get() is None


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("driver", DRIVERS)
def test_f6_the_span_of_a_statement_names_its_side_its_reason_and_its_own_server(
    driver: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_driver(driver)
    fixture, make = DRIVERS[driver]
    pair: ReplicatedPair = request.getfixturevalue(fixture)
    with closing(pair.connect("master")) as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS spanned")
        cursor.execute("CREATE TABLE spanned (n INTEGER)")
        plain.commit()
    pair.wait_caught_up()
    with (
        traced(monkeypatch, make()) as found,
        replswitch.connect(pair.master, pair.slaves, driver=driver, name=f"spans of {driver}") as db,
        use_slave(),
    ):
        ask(db, "SELECT 1 FROM spanned")
        with use_master():  # the latest connection is now the master's
            ask(db, "SELECT 2 FROM spanned")
        ask(db, "SELECT 3 FROM spanned")
        ask(db, "INSERT INTO spanned VALUES (4)")
    reasons = ("use_slave", "use_master", "use_slave", "use_slave", "moved-write")  # the slave has refused the INSERT
    assert found.labels("spanned") == expected(pair, *reasons)
    counted = found.metrics()["replswitch.statements"]
    with replswitch.connect(pair.master, pair.slaves, driver=driver) as db_without_tool:
        ask(db_without_tool, "SELECT 5 FROM spanned")
    assert not found.spans("SELECT 5")
    assert counted[db.database.name, "slave", f"127.0.0.1:{pair.slaves[0]['port']}", "use_slave"] == 2


@pytest.mark.usefixtures("off")
def test_f6_the_span_of_a_sqlalchemy_sessions_statement_names_its_side_its_reason_and_its_server(
    mariadb_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [
        create_engine("mysql+pymysql://{user}:{password}@{host}:{port}/{database}".format(**server))
        for server in (mariadb_pair.master, *mariadb_pair.slaves)
    ]
    master, slave = engines
    replicate(master, [slave])
    session_class = sessionmaker(master, class_=RoutingSession)
    found: Traced
    try:
        with traced(monkeypatch, PyMySQLInstrumentor()) as found:
            # Its check of the version refuses SQLAlchemy 2.1.
            instrumentor = SQLAlchemyInstrumentor()
            instrumentor.instrument(engines=engines, tracer_provider=found.tracers, skip_dep_check=True)
            with use_slave(), session_class() as session:
                session.execute(text("SELECT 11"))
                with pytest.raises(Exception, match="nothing_there"):
                    session.execute(text("SELECT nothing_there"))
            with session_class() as session:
                session.execute(text("SELECT 12"))
            instrumentor.uninstrument()
    finally:
        for engine in engines:
            engine.dispose()
    assert found.labels("SELECT 11") == expected(mariadb_pair, "use_slave") * 2  # of SQLAlchemy, and of PyMySQL
    assert found.labels("SELECT 12") == expected(mariadb_pair, "default") * 2
    assert found.labels("nothing_there")[:1] == expected(mariadb_pair, "use_slave")


@pytest.mark.usefixtures("off")
def test_the_metrics_of_opentelemetry_equal_the_counts_of_stats(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    db = make()
    ask(db)
    with traced(monkeypatch) as found, use_slave():
        ask(db)
        ask(db, "INSERT INTO message (body) VALUES ('moved')")
        measured = found.metrics()
    stats = replswitch.stats()
    assert measured["replswitch.statements"] == stats.pop("statements")
    assert measured["replswitch.events"] == {
        (event, *place): number for event, counted in stats.items() for place, number in counted.items()
    }
    assert measured["replswitch.events"]["moved-write", db.database.name, "slave.db"] == 1


@pytest.mark.usefixtures("off")
def test_each_task_has_its_own_running_statement(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    db = make()

    async def visit(found: Traced, side: Any, number: int) -> None:
        with side():
            for _ in range(3):
                with found.tracers.get_tracer("outside").start_as_current_span("outside"):
                    ask(db, f"SELECT {number}")
                    await asyncio.sleep(0)

    async def visits(found: Traced) -> None:
        await asyncio.gather(*(visit(found, side, number) for number, side in enumerate((use_master, use_slave) * 2)))

    with traced(monkeypatch) as found:
        asyncio.run(visits(found))
    assert len(found.named("outside")) == 12
    assert not any(set(span.attributes) for span in found.named("outside")), "a span of something else is not labelled"


@pytest.mark.usefixtures("off")
def test_instrumenting_twice_counts_each_statement_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    db = make()
    with traced(monkeypatch) as found:
        ReplSwitchInstrumentor().uninstrument()
        ReplSwitchInstrumentor().instrument(tracer_provider=found.tracers, meter_provider=found.meters)
        ask(db)
        measured = found.metrics()["replswitch.statements"]
    assert measured[db.database.name, "master", "master.db", "default"] == 1


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize(("provider", "warns"), [(ProxyTracerProvider, True), (NoOpTracerProvider, False)])
def test_a_warning_says_that_no_tracer_provider_is_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, provider: Any, warns: bool
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", provider)
    ReplSwitchInstrumentor().instrument()
    ReplSwitchInstrumentor().uninstrument()
    assert ("Call instrument() after set_tracer_provider()" in caplog.text) == warns


class Network(Driver):
    default_port = 3306


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("slave1.db", ("slave1.db", 3306)),
        ("slave1.db:3307", ("slave1.db", 3307)),
        ("::1", ("::1", 3306)),
        ("[::1]:3307", ("::1", 3307)),
        ("/run/mysqld.sock", ("/run/mysqld.sock", None)),
        ("/tmp:5433", ("/tmp", 5433)),
        ("@abstract", ("@abstract", None)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, endpoint: tuple[str, int | None]) -> None:
    assert Network().endpoint(address) == endpoint
    assert Driver().endpoint(address) == ("", None)


def test_an_ipv6_host_with_a_port_is_in_brackets() -> None:
    for name, settings in (("pymysql", {"host": "::1", "port": 3307}), ("psycopg", {"host": "::1", "port": 3307})):
        driver = load_driver(name)
        assert driver.address(settings) == "[::1]:3307"
        assert driver.endpoint(driver.address(settings)) == ("::1", 3307)
