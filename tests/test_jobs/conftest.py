"""Redis, the table of messages, and the process of a worker."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.test_jobs.board import REDIS, SERVERS

from replswitch.outside import Outside
from replswitch.request.marker import Marker
from replswitch.testing import MariaDBPair

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)

Start = Callable[..., Callable[[], str]]


def missing(what: str) -> None:
    """Skip the test, or let it fail if CI is set."""
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(f"CI is set, so this must not be skipped: {what}")
    pytest.skip(what)


@contextmanager
def process(argv: list[str], *, program: str | None = None) -> Iterator[Callable[[], str]]:
    """Run a program during the block, which gets a function that returns its output so far and whether it has ended."""
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            argv, executable=program, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )

        def told() -> str:
            output.seek(0)
            return f"{output.read().decode(errors='replace')}\n(exit status: {running.poll()})"

        try:
            yield told
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
            sys.stderr.write(told())


@pytest.fixture(scope="module")
def redis_socket() -> Iterator[str]:
    """The path of the socket of a Redis server."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    # Both are one program, and its first argument says which of them it is; see tools/ensure-redis.
    program = shutil.which("redis-server", path=path) or shutil.which("redis-check-rdb", path=path)
    if program is None:
        missing("redis-server is missing: tools/ensure-redis installs it")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = f"{folder}/socket"
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder]
        with process(["redis-server", *options], program=program):
            deadline = time.monotonic() + 30
            while not _listens(path):
                assert time.monotonic() < deadline, "Redis does not answer"
                time.sleep(0.02)
            yield path


def _listens(path: str) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        return not probe.connect_ex(path)


@pytest.fixture(scope="module")
def start_worker(mariadb_pair_of_session: MariaDBPair, redis_socket: str) -> Iterator[Start]:
    """A function that starts a Python module as a worker, which runs until the end of the tests of the module.

    It returns a function for the output of the worker.
    """
    pair = mariadb_pair_of_session
    pair.reset()
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE message (id INT PRIMARY KEY, body TEXT)")
    pair.wait_caught_up()
    environment = {
        SERVERS: json.dumps({"master": pair.master, "slaves": pair.slaves}),
        REDIS: redis_socket,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        # The tests of Django set it in their process, and Celery would set Django up in its worker.
        patch.delenv("DJANGO_SETTINGS_MODULE", raising=False)

        def start(*argv: str) -> Callable[[], str]:
            return stack.enter_context(process([sys.executable, "-m", *argv]))

        yield start


def forget_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process have written nothing so far."""
    Outside.wrote()  # so that nothing is left to merge
    monkeypatch.setattr(Outside, "merged", Marker())
    monkeypatch.setattr(Outside, "may_have_written_at", 0)


@pytest.fixture
def number() -> int:
    """The number of a message that no other test of the file writes."""
    return next(_numbers) * 10
