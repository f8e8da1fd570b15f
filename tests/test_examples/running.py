"""Run an example as a separate process, and visit it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for path in map(str, (ROOT / "src", *(ROOT / "integrations").iterdir())) if path in sys.path]
"""The sources, if the tests import them. If it is empty, the examples run on what is installed."""


@contextmanager
def example(name: str, *arguments: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start the example as a process, and stop it at the end. Its temporary files go to ``folder``."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(SOURCES)}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    if folder is not None:
        environ["TMPDIR"] = str(folder)
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples" / name), *arguments],
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


def wait_for_address(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Read the output up to the line with the address. Return the address, and the lines before it."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if match := re.search(r"http://\S+:\d+", line):
            return match[0], lines
        lines.append(line)
    assert process.stderr is not None
    pytest.fail(f"The example did not start: {lines} {process.stderr.read()}")


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal. Return the exit code, and the text on standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)  # enough for a busy machine
    return process.returncode, errors


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for the example's temporary files, and check that it is empty at the end."""
    folder = Path(tempfile.mkdtemp(prefix="example-"))  # tmp_path is too long for the servers' sockets
    folder.chmod(0o755)  # PostgreSQL refuses to run as root, and then runs under another account
    try:
        yield folder
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)


def database_word(database: str, lines: Sequence[str]) -> bool:
    """Return whether a line names the database that the example was started with."""
    return any(
        {"sqlite": "SQLite", "mariadb": "MariaDB", "postgresql": "PostgreSQL"}[database] in line for line in lines
    )


class Answer(NamedTuple):
    """A response.

    Attributes:
        location: the path to which it redirects.
        decided: the value of the debug header.
    """

    status: int
    location: str
    text: str
    decided: str


Page = TypeVar("Page", bound=Answer)


class Browser(Generic[Page]):
    """A visitor with cookies of their own."""

    def __init__(self, address: str, page: Callable[[int, str, str, str], Page]) -> None:
        self.server = urlsplit(address).netloc
        self.page = page
        self.cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        """The header Cookie of the next request."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def ask(self, method: str, path: str, form: dict[str, str] | None = None, value: object = None) -> Page:
        """Send a request, with a form, or with a value as JSON."""
        body = None
        headers = {"Cookie": self.cookie}
        if value is not None:
            body = json.dumps(value)
            headers["Content-Type"] = "application/json"
        if form is not None:
            if "csrftoken" in self.cookies:
                form = form | {"csrfmiddlewaretoken": self.cookies["csrftoken"]}
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.server, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("Set-Cookie", []):
                self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
            location = urlsplit(response.headers.get("Location", ""))._replace(scheme="", netloc="").geturl()
            decided = response.headers.get("Replswitch", "")
            return self.page(response.status, location, response.read().decode(), decided)
        finally:
            connection.close()

    def get(self, path: str = "/") -> Page:
        return self.ask("GET", path)

    def forget_markers(self) -> None:
        """Delete the marker cookies, as a browser does when they expire."""
        self.cookies = {name: value for name, value in self.cookies.items() if not name.startswith("just_updated")}
