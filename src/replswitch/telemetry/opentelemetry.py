"""OpenTelemetry: the counters of `replswitch.stats` as metrics, and attributes for the spans of other instrumentations.

This is the only module that imports OpenTelemetry.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from replswitch.state import stack
from replswitch.telemetry.counters import FAMILIES
from replswitch.telemetry.running import running, watching

try:
    from opentelemetry import metrics, trace
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped
    from opentelemetry.sdk.trace import SpanProcessor
except ImportError as error:
    raise ImportError(
        "replswitch.telemetry.opentelemetry needs OpenTelemetry's SDK, which is not installed: pip install "
        "'replswitch[opentelemetry]'."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from replswitch.decision import Decision
    from replswitch.drivers import Driver
    from replswitch.telemetry.counters import Family, Tally

    Attributes = dict[str, str | int]


logger = logging.getLogger(__name__)

_CLIENT, _SERVER = trace.SpanKind.CLIENT, trace.SpanKind.SERVER


class ReplSwitchInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it has no types
    """Gives OpenTelemetry the counters of `replswitch.stats`, and labels the spans of statements and requests.

    Call ``ReplSwitchInstrumentor().instrument()`` once in each process, after the providers are set. The command
    ``opentelemetry-instrument`` does this by itself. `instrument` takes ``tracer_provider`` and ``meter_provider``; the
    defaults are the global providers.

    replswitch makes no spans. The spans of statements are made by the instrumentations of the drivers and of
    SQLAlchemy, and those of requests by the instrumentations of frameworks, such as Django.
    """

    _labelled: ClassVar[WeakSet[Any]] = WeakSet()
    _measured: ClassVar[WeakSet[Any]] = WeakSet()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no packages, because only replswitch itself must be installed."""
        return ()

    def _instrument(self, **options: Any) -> None:
        tracers = options.get("tracer_provider") or trace.get_tracer_provider()
        meters = options.get("meter_provider") or metrics.get_meter_provider()
        if hasattr(tracers, "add_span_processor"):  # a provider of the SDK, and not the one that makes no spans
            if tracers not in self._labelled:
                self._labelled.add(tracers)
                tracers.add_span_processor(SpanLabels())
            watching.start(_label_request)
        elif isinstance(tracers, trace.ProxyTracerProvider):
            logger.warning(
                "No tracer provider is set, so replswitch labels no spans. Call instrument() after"
                " set_tracer_provider(), or pass tracer_provider. If you want no spans, pass"
                " opentelemetry.trace.NoOpTracerProvider()."
            )
        if meters not in self._measured:
            self._measured.add(meters)
            meter = metrics.get_meter("replswitch", meter_provider=meters)
            for family in FAMILIES:
                meter.create_observable_counter(
                    f"replswitch.{family.name}",
                    callbacks=[partial(_observe, family)],
                    unit=f"{{{family.name.removesuffix('s')}}}",
                    description=family.text,
                )

    def _uninstrument(self, **options: Any) -> None:
        watching.stop()


def _observe(family: Family, _: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
    names = [f"replswitch.{label}" for label in family.labels]
    for labels, number in family.values().items():
        yield metrics.Observation(number, dict(zip(names, labels, strict=True)))


class SpanLabels(SpanProcessor):
    """Labels the spans that instrumentations make for statements, and for requests inside replswitch's middleware."""

    def __init__(self) -> None:
        self._known: dict[Tally, Attributes] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Label the span of a statement or a request."""
        statement = running.get()
        if statement is not None and span.kind is _CLIENT:
            attributes = self._known.get(statement[0])
            if attributes is None:
                attributes = self._known[statement[0]] = _attributes(*statement)
            span.set_attributes(attributes)
        elif span.kind is _SERVER and (frame := stack()) is not None and frame.scope.decision is not None:
            _label(span, frame.scope.decision)


def _attributes(tally: Tally, driver: Driver) -> Attributes:
    _, side, server, reason = tally.labels
    attributes: Attributes = {"replswitch.side": side, "replswitch.reason": reason}
    address, port = driver.endpoint(server)
    if address:
        attributes["server.address"] = address
    if port is not None:
        attributes["server.port"] = port
    return attributes


def _label(span: trace.Span, decision: Decision) -> None:
    span.set_attributes({"replswitch.side": decision.state, "replswitch.reason": decision.reason})


def _label_request(decision: Decision) -> None:
    """Label the span in which a request begins, such as that of the instrumentation of Django."""
    span: Any = trace.get_current_span()
    if span.is_recording() and getattr(span, "kind", None) is _SERVER:
        _label(span, decision)
