"""Asynchronous views and consumers under real servers: the marker has each write that came before the headers (M1)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from django.conf import settings
from tests.test_asgi.conftest import required
from tests.test_django.conftest import ROOT, SETTINGS, SOURCES
from tests.test_django.requests.board import LiveServer, Site, Visitor

COMMANDS = {
    "uvicorn": "uvicorn --port {} --log-level critical",
    "daphne": "daphne --port {} --verbosity 0",
}


@pytest.fixture(params=COMMANDS)
def door(request: pytest.FixtureRequest, site: Site) -> Iterator[LiveServer]:
    """The project in a process of the server."""
    for module in (request.param, "channels"):
        required(module)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *SOURCES]),
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "PROJECT_DATABASES": json.dumps(settings.DATABASES),
    }
    command = [*COMMANDS[request.param].format(port).split(), "tests.test_django.requests.served_async:application"]
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment, cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield LiveServer(port)
    finally:
        process.terminate()
        process.wait(30)


def test_m1_each_write_before_the_headers_is_marked_under_a_real_server(site: Site, door: LiveServer) -> None:
    site.pair.stop_slave()
    written = ["1"]
    for number, name in enumerate(("stream", "threads", "consumer"), start=2):
        written += [str(number)] * (2 if name == "threads" else 1)
        visitor = Visitor(door)
        page = visitor.post(f"/{name}?n={number}")
        assert page.text.split() == written, name
        (marker,) = page.markers
        assert int(marker["max-age"]) > 60, f"the position was not known: {name}"
        assert visitor.get().text.split() == written, name
        assert Visitor(door).get().text == "1"
    site.assert_lagged()
