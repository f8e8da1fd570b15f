"""A line for each request, at the level DEBUG."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_telemetry.conftest import Make, ask
from webob import Request

from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from replswitch import Connection
    from replswitch.testing import SQLitePair


def site(db: Connection) -> ReplicationMiddleware:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/begins":
            db.begin()
            ask(db)
        if environ["REQUEST_METHOD"] == "POST" or environ["PATH_INFO"] != "/":
            ask(db, "INSERT INTO message (body) VALUES ('one')")
            db.commit()
        elif environ["PATH_INFO"] == "/":
            ask(db)
        start_response("200 OK", [])
        return [b""]

    return ReplicationMiddleware(answer, secret="a secret of the tests")


def test_each_request_has_one_log_line_with_its_state_servers_and_marker(
    make: Make, pair: SQLitePair, caplog: pytest.LogCaptureFixture
) -> None:
    application: Any = site(make(wait=0.01))
    caplog.set_level(logging.DEBUG, "replswitch.requests")
    pair.stop_slave()
    posted = Request.blank("/", method="POST").get_response(application)
    cookie = posted.headers["Set-Cookie"].partition(";")[0]
    Request.blank("/").get_response(application)
    Request.blank("/", headers={"Cookie": cookie}).get_response(application)
    Request.blank("/begins").get_response(application)
    lines = [record.getMessage() for record in caplog.records if record.name == "replswitch.requests"]
    assert lines == [
        "POST /: master (method), served by master.db (master, method); it wrote",
        "GET /: slave (method), served by slave.db (slave, method)",
        "GET /: slave (method), served by master.db (master, marker); it came with a marker; it waited for a slave",
        "GET /begins: slave (method), served by slave.db (slave, method); it runs again on the master",
        "GET /begins: master (replay), served by master.db (master, replay); it wrote",
    ]
    facts: Any = caplog.records[0]
    assert (facts.replswitch["method"], facts.replswitch["path"]) == ("POST", "/")
    assert facts.replswitch["servers"] == ["master.db (master, method)"]
    assert facts.replswitch["wrote"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a%0AGET%20/admin:%20slave", "/a%0AGET /admin: slave"),
        ("/a%0D%1B[2J%00", "/a%0D%1B[2J%00"),
        ("/%E2%80%A8", "/%E2%80%A8"),  # the line separator of Unicode
        ("/caf%C3%A9", "/café"),
        ("/%FF", "/\N{REPLACEMENT CHARACTER}"),
        ("/100%25", "/100%"),
    ],
)
def test_a_path_in_the_log_line_of_a_request_adds_no_line(
    db: Connection, caplog: pytest.LogCaptureFixture, path: str, shown: str
) -> None:
    caplog.set_level(logging.DEBUG, "replswitch.requests")
    Request.blank(path).get_response(site(db))
    (record,) = (each for each in caplog.records if each.name == "replswitch.requests")
    facts: Any = record
    assert record.getMessage().splitlines()[0].startswith(f"GET {shown}: slave (method), served by ")
    assert len(record.getMessage().splitlines()) == 1
    assert facts.replswitch["path"] == shown


def test_without_debug_logging_a_request_logs_nothing(db: Connection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "replswitch.requests")
    Request.blank("/").get_response(site(db))
    assert not [record for record in caplog.records if record.name == "replswitch.requests"]
