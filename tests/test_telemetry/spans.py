"""The spans of OpenTelemetry's own instrumentations, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability as Conventions
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from replswitch.telemetry.opentelemetry import ReplSwitchInstrumentor


class Labels(NamedTuple):
    """What a span says of the server of its statement."""

    side: Any
    reason: Any
    address: Any
    port: Any


class Traced:
    """The providers, and what they got."""

    def __init__(self) -> None:
        self.tracers, self._spans = TracerProvider(), InMemorySpanExporter()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def spans(self, word: str) -> list[Any]:
        """The ended spans with a word in their statement."""
        return [
            span
            for span in self._spans.get_finished_spans()
            if word in str((span.attributes or {}).get("db.statement"))
        ]

    def requests(self) -> list[Any]:
        """The ended spans of requests."""
        return [span for span in self._spans.get_finished_spans() if span.kind is SpanKind.SERVER]

    def named(self, name: str) -> list[Any]:
        """The ended spans with a name."""
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def labels(self, word: str) -> list[Labels]:
        """What the spans with a word in their statement say of the server.

        A span has the old names of attributes, the new ones, or both. If both do not say the same, there is one more.
        """
        found: list[Labels] = []
        for span in self.spans(word):
            given = span.attributes
            said = {}
            for address, port in (("server.address", "server.port"), ("net.peer.name", "net.peer.port")):
                if address in given:
                    values = (given.get(name) for name in ("replswitch.side", "replswitch.reason", address, port))
                    said[Labels(*values)] = True
            found += said
        return found

    def metrics(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """The values of the metrics by the values of their attributes."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: {tuple(point.attributes.values()): point.value for point in points_of(metric)}
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def points_of(metric: Any) -> list[Any]:
    return list(metric.data.data_points) if hasattr(metric.data, "is_monotonic") else []  # no histograms


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch, *instrumentors: Any) -> Iterator[Traced]:
    """Instrument with these instrumentors and ours. The spans have the names of both conventions."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "database/dup,http/dup")
    monkeypatch.setattr(Conventions, "_initialized", False)
    mapping: Any = Conventions._OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING
    monkeypatch.setattr(Conventions, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", dict(mapping))
    for kind in (psycopg.Connection, psycopg.AsyncConnection):
        monkeypatch.setattr(kind, "connect", vars(kind)["connect"])  # uninstrument() leaves another function there
    made = Traced()
    with ExitStack() as exits:
        for instrumentor in (ReplSwitchInstrumentor(), *instrumentors):
            # Some of them do not know the newest version of what they instrument.
            instrumentor.instrument(tracer_provider=made.tracers, meter_provider=made.meters, skip_dep_check=True)
            exits.callback(instrumentor.uninstrument)
        yield made
