"""The shop in examples/shop_flask, run as its visitors and its operator do."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for path in map(str, (ROOT / "src", ROOT / "integrations" / "flask")) if path in sys.path]
"""The sources, where the tests import them; or else nothing, and the example runs on what is installed."""


@contextmanager
def example(*arguments: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """The example as a process; what it keeps in a temporary folder goes to ``folder``."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(SOURCES)}
    if folder is not None:
        environ["TMPDIR"] = str(folder)
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples" / "shop_flask"), *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.terminate()
    finally:
        process.wait()


class Page(NamedTuple):
    status: int
    location: str
    text: str
    decided: str

    @property
    def stock(self) -> dict[str, int]:
        cells = re.findall(r'<td>([^<]+)</td>\s*<td class="number">(\d+)</td>', self.text)
        return {name: int(number) for name, number in cells}

    @property
    def queries(self) -> list[tuple[str, str]]:
        """The side and the SQL of each query of the latest request on the page."""
        latest = self.text.partition('<ol id="requests">')[2].partition("</ul>")[0]
        return re.findall(r'class="badge (\w+)">\1</span> [^<]+<code>\s*([^<]*)</code>', latest)


class Browser:
    """A visitor, with cookies of his own."""

    def __init__(self, address: str) -> None:
        self.server = urlsplit(address).netloc
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> Page:
        body = None
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if form is not None:
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.server, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("Set-Cookie", []):
                self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
            decided = response.headers.get("Replswitch", "")
            return Page(response.status, response.headers.get("Location", ""), response.read().decode(), decided)
        finally:
            connection.close()

    def get(self, path: str = "/") -> Page:
        return self.ask("GET", path)


@contextmanager
def shop(database: str) -> Iterator[str]:
    """The address of a shop, which is ended by Ctrl-C and must leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="shop-"))  # tmp_path is too long for the servers' sockets
    try:
        with example("--database", database, "--port", "0", folder=folder) as process:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if match := re.search(r"http://\S+:\d+", line):
                    break
            else:
                pytest.fail(f"The shop did not start: {lines} {process.stderr and process.stderr.read()}")
            assert {"sqlite": "SQLite", "mariadb": "MariaDB"}[database] in lines[0]
            assert lines[1] == {"sqlite": "main\n", "mariadb": "shop\n"}[database]
            assert list(folder.iterdir())
            yield match[0]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=15)
            assert process.returncode == 0
            assert "Traceback" not in errors
            assert "moved to the master" not in errors
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a shop that runs for all tests."""
    if request.param == "mariadb":
        request.getfixturevalue("mariadb_pair_of_session")  # skips where there is no server, except in CI
    with shop(request.param) as address:
        yield address


@pytest.fixture
def visitor(address: str) -> Browser:
    visitor = Browser(address)
    visitor.get()
    return visitor


def test_whoever_buys_sees_it_while_others_still_read_the_slave(visitor: Browser, address: str) -> None:
    page = visitor.get()
    assert {db for db, _ in page.queries} == {"slave"}
    assert "reason=method" in page.decided
    before = page.stock["Sugar bowl"]

    answer = visitor.ask("POST", "/buy/3", {})
    assert (answer.status, answer.location) == (302, "/")
    page = visitor.get()
    assert page.stock["Sugar bowl"] == before - 1
    assert "Your basket: Sugar bowl." in page.text
    assert {db for db, _ in page.queries} == {"master"}
    assert "reason=marker" in page.decided

    other = Browser(address)
    assert other.get().stock["Sugar bowl"] == before
    deadline = time.monotonic() + 10
    while other.get().stock["Sugar bowl"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for each in (other, visitor):  # the buyer, too: the slave has what he must see
        page = each.get()
        assert ({db for db, _ in page.queries}, page.stock["Sugar bowl"]) == ({"slave"}, before - 1)


def test_a_post_that_reads(visitor: Browser) -> None:
    page = visitor.ask("POST", "/search", {"wanted": "tea"})
    assert list(page.stock) == ["Teapot"]
    assert {db for db, _ in page.queries} == {"slave"}


def test_a_get_that_must_be_exact(visitor: Browser) -> None:
    page = visitor.get("/stock/1")
    assert page.text == "12 of Teapot\n"
    assert page.decided.startswith("master;")
    assert page.decided.endswith("reason=use_master")


def test_what_is_sold_out_is_not_sold(visitor: Browser) -> None:
    for _ in range(2):
        assert visitor.ask("POST", "/buy/4", {}).status == 302
    page = visitor.get()
    assert page.stock["The last spoon"] == 0
    assert "Your basket: The last spoon." in page.text


def test_many_buy_at_once(visitor: Browser) -> None:
    before = visitor.get("/stock/2").text

    def buy(_: int) -> list[int]:
        return [visitor.ask("POST", "/buy/2", {}).status for _ in range(5)]

    with ThreadPoolExecutor(4) as visitors:
        assert [status for each in visitors.map(buy, range(4)) for status in each] == [302] * 20
    assert before == "48 of Cup\n"
    assert visitor.get("/stock/2").text == "28 of Cup\n"


def test_what_is_not_for_sale(visitor: Browser) -> None:
    assert visitor.ask("POST", "/buy/99", {}).status == 404
    assert visitor.get("/stock/99").status == 404


def test_a_port_that_is_taken(address: str) -> None:
    with example("--database", "sqlite", "--port", str(urlsplit(address).port)) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "is in use by another program" in errors
