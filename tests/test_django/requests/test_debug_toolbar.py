"""The panel for django-debug-toolbar, and the toolbar's SQL panel, with the real package in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from tests.test_django.conftest import RunPython
from tests.test_django.project.dialect import Pair

SCRIPT = """
import asyncio, json, re, sys
import tests.test_django.project.settings as project

project.INSTALLED_APPS += ["django.contrib.staticfiles", "debug_toolbar"]
project.STATIC_URL, project.DEBUG, project.INTERNAL_IPS = "static/", True, ["127.0.0.1"]
project.ROOT_URLCONF = "tests.test_django.requests.toolbar_urls"
toolbar = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
inside, outside = project.MIDDLEWARE + toolbar, toolbar + project.MIDDLEWARE
project.DEBUG_TOOLBAR_PANELS = ["debug_toolbar.panels.sql.SQLPanel", "django_replswitch.panels.ReplicationPanel"]

import django
django.setup()
from django.test import AsyncClient, Client, override_settings
from replswitch.request.replay import forget_endpoints

def panels(response):
    page = response.content.decode()
    found = {"title": " ".join(re.search(r"Replication.*?<small>(.*?)</small>", page, re.DOTALL)[1].split())}
    key = re.search(r'data-request-id="([^"]+)"', page)[1]
    for panel in ("ReplicationPanel", "SQLPanel"):
        answer = Client().get("/__debug__/render_panel/", {"request_id": key, "panel_id": panel})
        found[panel] = answer.json()["content"]
    return found

async def asynchronous():
    return await AsyncClient().get("/async/")

found = {}
for middleware in (inside, outside):
    forget_endpoints()
    with override_settings(MIDDLEWARE=middleware):
        with override_settings(REPLSWITCH={**project.REPLSWITCH, "ROLLOUT": 0.5}):
            new_visitor = panels(Client().get("/"))
        with override_settings(REPLSWITCH={**project.REPLSWITCH, "ROLLOUT": 0}):
            left_out = panels(Client().get("/"))
        client = Client()
        found["inside" if middleware is inside else "outside"] = {
            "new_visitor": new_visitor,
            "left_out": left_out,
            "get": panels(client.get("/")),
            "post": panels(client.post("/")),
            "after": panels(client.get("/")),
            "async": panels(asyncio.run(asynchronous())),
            "visit": panels(Client().get("/visit/")),
        }
print("FOUND " + json.dumps(found))
"""


def rows(content: str) -> list[list[str]]:
    """Return the texts of the cells of the table of queries."""
    table = content.partition("<h4>Queries</h4>")[2]
    return [
        [cell.partition("</td>")[0].replace("<code>", "").replace("</code>", "") for cell in row.split("<td>")[1:]]
        for row in table.split("<tr>")[2:]
    ]


def facts(content: str) -> dict[str, str]:
    """Return the table of the request."""
    table = content.partition("<h4>Queries</h4>")[0]
    cells = [row.split("<td>") for row in table.split("<tr>")[1:]]
    return {name.partition("<th>")[2].partition("</th>")[0]: value.partition("</td>")[0] for name, value in cells}


def test_the_panel_shows_each_query_and_the_decisions(django_pair: Pair, run_python: RunPython) -> None:
    found: dict[str, dict[str, Any]] = json.loads(run_python(SCRIPT).partition("FOUND ")[2])
    for placed, pages in found.items():
        check(django_pair, pages, outside=placed == "outside")


def check(django_pair: Pair, pages: dict[str, Any], *, outside: bool) -> None:
    """Check the panels of the requests, with the toolbar's middleware outside or inside that of replswitch."""
    slave = f"127.0.0.1:{django_pair.slaves[0]['port']}"
    master = f"127.0.0.1:{django_pair.master['port']}"

    get = pages["get"]
    assert get["title"] == "1 on slaves, 0 on the master"
    ((side, server, reason, alias, sql, line),) = rows(get["ReplicationPanel"])
    assert (side, server, reason, alias) == ("slave", slave, "method", "default")
    assert sql.startswith("SELECT COUNT(*)")
    assert "in page" in line
    shown = facts(get["ReplicationPanel"])
    assert (shown["State"], shown["Reason"]) == ("slave", "method")
    assert (shown["Marker received"], shown["Written"], shown["Marker sent"]) == ("none", "no", "none")
    assert shown["Servers chosen"] == f"slave {slave} (method)"
    assert "SELECT" in get["SQLPanel"], "the toolbar's own panel does not show a query of a slave"
    assert "project_message" in get["SQLPanel"]

    sent = facts(pages["new_visitor"]["ReplicationPanel"])["Marker sent"]
    assert sent == "none", "the panel shows the ticket of the option rollout as a marker"

    left_out = pages["left_out"]
    assert left_out["title"] == "0 on slaves, 1 on the master"
    assert [row[:3] for row in rows(left_out["ReplicationPanel"])] == [["slave", master, "rollout"]]

    post = pages["post"]
    assert post["title"] == "0 on slaves, 2 on the master"
    assert [row[:2] for row in rows(post["ReplicationPanel"])] == [["master", master]] * 2
    shown = facts(post["ReplicationPanel"])
    assert shown["State"] == "master"
    if outside:
        assert shown["Written"] == "yes"
        assert shown["Marker sent"].startswith("in the cookie just_updated")
    else:
        assert shown["Marker sent"].startswith("added after this panel")

    assert facts(pages["after"]["ReplicationPanel"])["Marker received"] != "none"
    assert [row[0] for row in rows(pages["async"]["ReplicationPanel"])] == ["slave"]

    visit = facts(pages["visit"]["ReplicationPanel"])
    assert (visit["State"], visit["Reason"]) == ("master", "replay")
    assert visit["Second try"].startswith("yes")
