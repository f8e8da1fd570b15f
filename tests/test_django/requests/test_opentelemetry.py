"""The spans of OpenTelemetry's instrumentation of Django, and those of the driver under it (F6)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.django import DjangoInstrumentor
from tests.test_django.project.served import DRIVER
from tests.test_django.requests.board import MIDDLEWARE, connection, through_wsgi
from tests.test_telemetry.spans import traced

if TYPE_CHECKING:
    from tests.test_django.requests.board import Site

INSTRUMENTORS = {"mysqlclient": "MySQLClient", "pymysql": "PyMySQL", "psycopg": "Psycopg"}


def test_f6_the_spans_of_a_request_and_of_its_queries_are_labelled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"opentelemetry.instrumentation.{DRIVER}")
    of_driver: Any = getattr(module, f"{INSTRUMENTORS[DRIVER]}Instrumentor")
    site.change(MIDDLEWARE=[MIDDLEWARE])  # the instrumentation of Django changes the list
    with traced(monkeypatch, DjangoInstrumentor(), of_driver()) as found:
        connection.close()  # the instrumentation of a driver sees only connections that are opened from now on
        through_wsgi("GET", "/", {})
        through_wsgi("POST", "/?n=2", {})
    ports = {"slave": site.pair.slaves[0]["port"], "master": site.pair.master["port"]}
    for request, word, side in zip(found.requests(), ("SELECT", "INSERT"), ("slave", "master"), strict=True):
        (query,) = [span for span in found.spans("project_message") if span.name == word]
        for span in (request, query):
            assert (span.attributes["replswitch.side"], span.attributes["replswitch.reason"]) == (side, "method")
        assert (query.attributes["server.address"], query.attributes["server.port"]) == ("127.0.0.1", ports[side])
        assert query.parent.span_id == request.context.span_id
