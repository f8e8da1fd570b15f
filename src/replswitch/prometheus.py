"""The events of the servers for Prometheus: `replswitch.stats()` as a counter of prometheus-client.

The only module that imports prometheus-client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replswitch.engine.events import stats

try:
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "replswitch.prometheus needs prometheus-client, which is not installed: pip install 'replswitch[prometheus]'."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "replswitch_events"
"""The name of the counter; Prometheus appends ``_total``."""

LABELS: Final = ("event", "database", "server")


class EventCollector(Collector):
    """Shows how often each event has happened in this process, when Prometheus asks.

    Register it once: ``prometheus_client.REGISTRY.register(EventCollector())``. The counter is
    ``replswitch_events_total``, with the labels ``event`` (see `replswitch.engine.events.EVENTS`), ``database`` (its
    name, in Django its alias) and ``server``. Nothing is counted twice and nothing is stored: it reads
    `replswitch.stats()`.

    prometheus-client's multiprocess mode reads files instead of collectors, so it does not show this counter.
    """

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter without values, so that another one of its name is refused when this is registered."""
        yield self._counter()

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter."""
        counter = self._counter()
        for event, counted in stats().items():
            for (database, server), number in counted.items():
                counter.add_metric([event, database, server], number)
        yield counter

    @staticmethod
    def _counter() -> CounterMetricFamily:
        return CounterMetricFamily(NAME, "Events of the servers that replswitch uses.", labels=LABELS)
