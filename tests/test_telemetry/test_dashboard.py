"""The dashboard for Grafana asks for counters, labels and values that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from replswitch.engine.events import EVENTS
from replswitch.telemetry.counters import FAMILIES
from replswitch.telemetry.prometheus import StatsCollector

FILE = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())

LABELS = {f"replswitch_{family.name}_total": set(family.labels) for family in FAMILIES}
VALUES: dict[str, set[Any]] = {"side": {"master", "slave"}, "event": set(EVENTS)}


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_each_expression_uses_a_counter_with_its_labels_and_values() -> None:
    for expression in expressions():
        selectors = re.findall(r"(replswitch_\w+)\{([^}]*)\}", expression)
        assert len(selectors) == expression.count("replswitch_") > 0
        for counter, matchers in selectors:
            labels = LABELS[counter]
            for label, operator, text in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                assert label in labels
                values = set(text.split("|")) if operator == "=~" else {text}
                assert values <= VALUES.get(label, values)
            for grouped in re.findall(r"by \(([^)]*)\)", expression):
                assert set(grouped.split(", ")) <= labels
        for target in (t for panel in DASHBOARD["panels"] for t in panel["targets"] if t["expr"] == expression):
            grouped = set(", ".join(re.findall(r"by \(([^)]*)\)", expression)).split(", "))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
        assert expression.count("(") == expression.count(")")


def test_r6_the_share_of_the_slaves_leaves_out_the_reads_that_the_master_serves_because_of_rollout() -> None:
    shares = [each for each in expressions() if 'side="slave"' in each]
    assert len(shares) == 2
    assert all('{side="slave", reason!="rollout",' in each for each in shares)


def test_the_prometheus_registry_has_the_counters_of_the_dashboard() -> None:
    registry = CollectorRegistry()
    registry.register(StatsCollector())
    assert {f"{family.name}_total" for family in StatsCollector().describe()} == set(LABELS)


def test_each_event_is_on_the_dashboard() -> None:
    assert all(any(re.search(rf'["|]{event}["|]', each) for each in expressions()) for event in EVENTS)


def test_the_panels_have_the_fields_that_grafana_imports() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert re.match(r"label_values\((replswitch_\w+), database\)$", variables["database"]["definition"])
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert DASHBOARD["uid"]
    places = []
    for panel in DASHBOARD["panels"]:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert {"defaults", "overrides"} == set(panel["fieldConfig"])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for variable in re.findall(r"\$\{?([a-z]\w*)", json.dumps(panel)):
            assert variable in variables
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places.append(
            {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
        )
    assert all(not one & other for one, other in combinations(places, 2)), "panels overlap"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
