"""What `replswitch.stats` counts, as counters of prometheus-client.

This is the only module that imports prometheus-client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.telemetry.counters import FAMILIES, forward

try:
    from prometheus_client import Counter, values
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "replswitch.telemetry.prometheus needs prometheus-client, which is not installed: pip install "
        "'replswitch[prometheus]'."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch.telemetry.counters import Family, Labels


class StatsCollector(Collector):
    """Shows the counters of this process to Prometheus.

    Register it once in each process: ``prometheus_client.REGISTRY.register(StatsCollector())``. The counters are
    ``replswitch_statements_total``, with the labels ``database``, ``side``, ``server`` and ``reason``; and
    ``replswitch_events_total``, with the labels ``event``, ``database`` and ``server``. See `replswitch.stats`.

    In the multiprocess mode of prometheus-client, the scraped process reads the files of all processes, and asks no
    collector. So in this mode, each process also writes its counts to its own file.
    """

    _writes_files = False

    def __init__(self) -> None:
        self._is_multiprocess = values.ValueClass is not values.MutexValue
        if self._is_multiprocess and not StatsCollector._writes_files:
            StatsCollector._writes_files = True
            forward(_file_of)

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Yield the counters without values, so that the registry refuses other counters with their names."""
        for family in FAMILIES:
            yield CounterMetricFamily(_name(family), family.text, labels=family.labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counters. In the multiprocess mode, yield none, because the files contain them."""
        for family in () if self._is_multiprocess else FAMILIES:
            counter = CounterMetricFamily(_name(family), family.text, labels=family.labels)
            for labels, number in family.values().items():
                counter.add_metric(labels, number)
            yield counter


def _name(family: Family) -> str:
    return f"replswitch_{family.name}"  # prometheus-client appends "_total"


# The counters that write the files in the multiprocess mode. No registry contains them.
_files: dict[str, Counter] = {}


def _file_of(family: Family, labels: Labels) -> Callable[[int], None]:
    counter = _files.get(family.name)
    if counter is None:
        counter = _files[family.name] = Counter(_name(family), family.text, family.labels, registry=None)
    return counter.labels(*labels).inc
