"""The counters for Prometheus."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

import replswitch
from replswitch.engine import events
from replswitch.prometheus import EventCollector


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(EventCollector())
    return registry


def shown(registry: CollectorRegistry, event: str, server: str) -> float | None:
    return registry.get_sample_value(
        "replswitch_events_total", {"event": event, "database": "of prometheus", "server": server}
    )


def test_each_event_is_a_prometheus_sample(registry: CollectorRegistry) -> None:
    assert shown(registry, "rest", "one") is None
    events.tell("rest", "of prometheus", "one", "The slave one rests.")
    events.tell("rest", "of prometheus", "one", "The slave one rests.")
    events.count("back", "of prometheus", "two")
    assert shown(registry, "rest", "one") == 2
    assert shown(registry, "back", "two") == 1
    assert shown(registry, "back", "one") is None


def test_the_samples_equal_stats(registry: CollectorRegistry) -> None:
    events.count("takeover", "of prometheus", "")
    told = {
        (event, *labels): float(number)
        for event, counted in replswitch.stats().items()
        for labels, number in counted.items()
    }
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert {(s.labels["event"], s.labels["database"], s.labels["server"]): s.value for s in samples} == told


def test_the_exported_text_is_in_the_prometheus_format(registry: CollectorRegistry) -> None:
    events.count("behind", "of prometheus", 'a "slave"')
    page = generate_latest(registry).decode()
    assert "# TYPE replswitch_events_total counter" in page
    assert r'replswitch_events_total{database="of prometheus",event="behind",server="a \"slave\""} 1.0' in page


def test_registering_the_collector_twice_is_an_error(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(EventCollector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("replswitch_events", "Another one.", registry=registry)


def test_without_prometheus_client_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import replswitch.prometheus"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "pip install 'replswitch[prometheus]'" in done.stderr
