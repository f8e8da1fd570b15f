"""What counting a statement costs, and what labelled spans and metrics add to it, in microseconds.

The call that counts is timed by itself, and held against a whole query through `replswitch.connect` on SQLite. For the
spans, the cursors of SQLite make a span for each statement as OpenTelemetry's instrumentations of drivers do. The query
is timed with the labels of replswitch and without; what the span itself costs is in both. In Prometheus' multiprocess
mode, each count is also written to a file. Needs the extras ``opentelemetry`` and ``prometheus``.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
from contextlib import closing
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from prometheus_client import values

import replswitch
from cost.ratio import Row, measure, repeated
from replswitch.drivers.sqlite3 import SQLiteDriver
from replswitch.telemetry.counters import Tally
from replswitch.telemetry.opentelemetry import ReplSwitchInstrumentor
from replswitch.telemetry.running import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cost.ratio import Batch, Times

ROUNDS = 400

COUNTING, TOOLS = 0.5, 10.0
"""The most that counting a statement may take, and that tools may add to a statement; in microseconds."""

Connection: Any = SQLiteDriver.factory


class SpanCursor(sqlite3.Cursor):
    """A cursor that makes a span for each statement."""

    tracer: Any

    def execute(self, sql: str, *args: Any) -> Any:
        """Run a statement in a span."""
        with SpanCursor.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT) as span:
            span.set_attributes({"db.system": "mysql", "db.statement": sql, "server.address": "another.db"})
            return super().execute(sql, *args)


class SpanConnection(Connection):  # type: ignore[misc]  # the class is of type Any here
    """A connection with such cursors."""

    def cursor(self, factory: Any = SpanCursor) -> Any:
        """Make one."""
        return super().cursor(factory)


class SpanDriver(SQLiteDriver):
    """The driver of SQLite with such connections, whose servers have ports as those of MySQL have."""

    factory = SpanConnection
    default_port = 3306


def query(db: replswitch.Connection) -> None:
    """Run one query."""
    cursor = db.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchone()
    cursor.close()


def counts(number: int, tally: Tally) -> None:
    """Count, as a statement does."""
    for _ in repeat(None, number):
        tally.add()


def passes(number: int) -> None:
    """Do nothing instead."""
    for _ in repeat(None, number):
        pass


def row(name: str, times: Times, more: str, less: str, limit: float, against: str | None = None) -> Row:
    """Make a row of the microseconds that one side takes longer than another, and what part of a third that is."""
    differences = [a - b for a, b in zip(times[more], times[less], strict=True)]
    whole = statistics.median(times[against or less])
    figure = statistics.median(differences)
    return Row(f"{name}, µs", figure * 1e6, limit, f"{1 + figure / whole:.3f} times {whole * 1e6:.2f} µs")


def spans(db: replswitch.Connection) -> Iterator[tuple[str, Batch]]:
    """Yield the sides: queries in spans, without labels and with them."""
    plain, labelled = TracerProvider(), TracerProvider()
    ReplSwitchInstrumentor().instrument(tracer_provider=labelled, meter_provider=MeterProvider())

    def batch(provider: TracerProvider, on: bool, number: int) -> None:
        SpanCursor.tracer, watching.on = provider.get_tracer("a driver"), on
        repeated(partial(query, db))(number)

    yield "span", partial(batch, plain, False)
    yield "labelled", partial(batch, labelled, True)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, PROMETHEUS_MULTIPROC_DIR=folder):
        settings = {"database": str(Path(folder, "master.db"))}
        kind: Any = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # prometheus-client leaves it out
        file = kind("counter", "replswitch_statements", "replswitch_statements_total", ("server",), ("slave.db",), "")
        written = Tally(())
        written.forward(file.inc)
        with (
            closing(replswitch.connect(settings, driver="sqlite3")) as db,
            closing(replswitch.connect(settings, driver=SpanDriver())) as in_spans,
        ):
            tally = Tally(())
            sides: dict[str, Batch] = {
                "loop": passes,
                "count": partial(counts, tally=tally),
                "file": partial(counts, tally=written),
                "query": repeated(partial(query, db)),
            }
            times = measure(sides, ROUNDS)
            yield row("counting a statement", times, "count", "loop", COUNTING, "query")
            yield row("counting it in the file of Prometheus as well", times, "file", "count", TOOLS, "query")
            try:
                times = measure(dict(spans(in_spans)), ROUNDS)
            finally:
                ReplSwitchInstrumentor().uninstrument()
            yield row("labels of a span, and the metrics", times, "labelled", "span", TOOLS)
