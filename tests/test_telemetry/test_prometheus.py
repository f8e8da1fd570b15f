"""The counters for Prometheus, with one process and with several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.test_telemetry.conftest import ask

import replswitch
from replswitch.decorators import use_slave
from replswitch.engine import events
from replswitch.telemetry.prometheus import StatsCollector

if TYPE_CHECKING:
    from replswitch import Connection
    from replswitch.testing import SQLitePair


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(StatsCollector())
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


def test_statements_are_prometheus_samples(registry: CollectorRegistry, db: Connection) -> None:
    with use_slave():
        ask(db)
    labels = {"database": db.database.name, "side": "slave", "server": "slave.db", "reason": "use_slave"}
    assert registry.get_sample_value("replswitch_statements_total", labels) == 1


def test_the_prometheus_samples_equal_the_counts_of_stats(registry: CollectorRegistry) -> None:
    events.count("takeover", "of prometheus", "")
    stats = replswitch.stats()
    statements = stats.pop("statements")
    told = {(event, *labels): float(number) for event, counted in stats.items() for labels, number in counted.items()}
    samples = {family.name: family.samples for family in registry.collect()}
    of_events = samples["replswitch_events"]
    assert {(s.labels["event"], s.labels["database"], s.labels["server"]): s.value for s in of_events} == told
    assert {tuple(s.labels.values()): s.value for s in samples["replswitch_statements"]} == statements


def test_the_exported_text_is_in_the_prometheus_format(registry: CollectorRegistry) -> None:
    events.count("behind", "of prometheus", 'a "slave"')
    page = generate_latest(registry).decode()
    assert "# TYPE replswitch_events_total counter" in page
    assert r'replswitch_events_total{database="of prometheus",event="behind",server="a \"slave\""} 1.0' in page


def test_registering_the_collector_twice_is_an_error(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(StatsCollector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("replswitch_events", "Another one.", registry=registry)


def test_without_prometheus_client_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import replswitch.telemetry.prometheus"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert "pip install 'replswitch[prometheus]'" in done.stderr


# Several processes

APPLICATION = """
import json, os, time
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess
import replswitch
from replswitch.decorators import use_slave
from replswitch.telemetry.prometheus import StatsCollector
from replswitch.wsgi import ReplicationMiddleware

servers = json.loads(os.environ["SERVERS"])
db = replswitch.connect(servers["master"], servers["slaves"], driver="sqlite3", name="shop")

def ask():
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()

ask()  # before the collector is there, and with --preload before the fork
REGISTRY.register(StatsCollector())
ask()

def answer(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return [generate_latest(registry)]
    ask()
    time.sleep(0.02)  # so that the other worker gets requests, too
    return [str(os.getpid()).encode()]

application = ReplicationMiddleware(answer, secret="a secret of the tests")
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


@contextmanager
def gunicorn(folder: Path, pair: SQLitePair, *options: str) -> Iterator[str]:
    """Serve the application with two workers; return its address."""
    (folder / "application.py").write_text(APPLICATION)
    (folder / "files").mkdir()
    servers = json.dumps({"master": pair.master, "slaves": pair.slaves})
    command = [sys.executable, "-m", "gunicorn", "application:application", "--workers", "2", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--no-control-socket", *options],
        cwd=folder,
        env=environment(SERVERS=servers, PROMETHEUS_MULTIPROC_DIR=str(folder / "files")),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if "Listening at: " in line:
                    yield line.partition("Listening at: ")[2].split()[0]
                    break
            else:
                pytest.fail("".join(lines))
        finally:
            process.terminate()
            process.communicate(timeout=60)


def get(address: str) -> str:
    with closing(urlopen(address, timeout=60)) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each worker imports", "preload"])
def test_the_workers_of_gunicorn_are_counted_together(
    tmp_path: Path, sqlite_pair: SQLitePair, options: tuple[str, ...]
) -> None:
    requests = 0
    workers: set[str] = set()
    with gunicorn(tmp_path, sqlite_pair, *options) as address, ThreadPoolExecutor(4) as executor:
        while len(workers) < 2:  # until both have served
            workers.update(executor.map(get, [address] * 20))
            requests += 20
        pages = [get(f"{address}/metrics") for _ in range(4)]
    imports = 1 if options else 2
    expected = {("slave", "method"): requests, ("master", "default"): 2 * imports}
    for page in pages:
        found: dict[Any, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "replswitch_statements_total":
                    assert sample.labels["database"] == "shop"
                    found[sample.labels["side"], sample.labels["reason"]] = sample.value
        assert found == expected
