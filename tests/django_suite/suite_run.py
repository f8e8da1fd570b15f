"""Runs labels of Django's tests with one engine, and prints the progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tests.django_suite.suite_outcomes import Outcomes

import django_replswitch
import replswitch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replswitch.testing import MariaDBPair, PostgreSQLPair

ROOT = Path(__file__).parents[2]
START = Path(__file__).with_name("suite_start.py")

MODULES = {"mysqlclient": "MySQLdb", "pymysql": "pymysql", "psycopg": "psycopg", "psycopg2": "psycopg2"}
"""What the drivers' modules are called."""

LOOK_EVERY = 0.2
"""Seconds between two looks at the record of a run."""

TOLD_EVERY = 20.0
"""Seconds between two lines about a run where the output is not a terminal."""


class BrokenRunError(Exception):
    """A run that did not come to its end, or was not what it should be; nothing can be compared."""


@dataclass(slots=True)
class Run:
    """One run: an engine and what came of it.

    Attributes:
        name: what the run is called in what is printed.
        engine: the engine of both aliases.
        folder: where the record and the output of the run are put.
        keepdb: use the test databases of an earlier run with this setting, and leave them to a later one.
        outcomes: how the tests ended.
        seconds: how long it took, databases made and removed included.
    """

    name: str
    engine: str
    folder: Path
    keepdb: bool = False
    outcomes: Outcomes = field(default_factory=Outcomes)
    seconds: float = 0.0

    def run(
        self, tests: Path, labels: Sequence[str], pair: MariaDBPair | PostgreSQLPair, *, driver: str, slaves: bool
    ) -> None:
        """Run labels.

        Args:
            tests: the folder of Django's tests.
            labels: which of them.
            pair: where the databases are.
            driver: one of `MODULES`.
            slaves: configure the pair's slaves.

        Raises:
            BrokenRunError: the run did not come to its end, or had another driver.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        record, log = self.folder / f"{self.name}.jsonl", self.folder / f"{self.name}.log"
        record.write_text("")
        told = {
            "engine": self.engine,
            "name": "suite",
            "master": pair.master,
            "slaves": pair.slaves if slaves else [],
            "driver": driver,
            "record": str(record.resolve()),
        }
        command = [
            sys.executable,
            str(START),
            "--settings=tests.django_suite.suite_settings",
            "--parallel=1",
            "--noinput",
            *(["--keepdb"] if self.keepdb else []),
            *labels,
        ]
        began = time.perf_counter()
        with (
            log.open("w", encoding="utf-8") as output,
            record.open(encoding="utf-8") as lines,
            subprocess.Popen(
                command, cwd=tests, env=_environment(told), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ) as process,
        ):
            try:
                self._follow(process, lines)
            finally:
                process.kill()
        self.seconds = time.perf_counter() - began
        if not self.outcomes.finished:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
            raise BrokenRunError(f"the run with {self.engine} was cut off (exit {process.returncode}):\n{end}")
        if self.outcomes.driver != MODULES[driver]:
            raise BrokenRunError(f"{self.engine} was to run with {driver}, and ran with {self.outcomes.driver}")

    def _follow(self, process: subprocess.Popen[bytes], lines: TextIO) -> None:
        progress = Progress(self.name)
        while process.poll() is None:
            self.outcomes.read(_whole(lines))
            progress.show(self.outcomes)
            time.sleep(LOOK_EVERY)
        self.outcomes.read(_whole(lines))
        progress.end(self.outcomes)


class Progress:
    """Says on the terminal how far a run is; elsewhere it says so from time to time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = self._told = time.perf_counter()

    def show(self, outcomes: Outcomes) -> None:
        """Say it, if it is time."""
        if sys.stderr.isatty():
            print(f"\r{self._line(outcomes)}\033[K", end="", file=sys.stderr, flush=True)
        elif time.perf_counter() >= self._told + TOLD_EVERY:
            self._told = time.perf_counter()
            print(self._line(outcomes), file=sys.stderr, flush=True)

    def end(self, outcomes: Outcomes) -> None:
        """Say it for the last time."""
        begin, end = ("\r", "\033[K") if sys.stderr.isatty() else ("", "")
        print(f"{begin}{self._line(outcomes)}{end}", file=sys.stderr, flush=True)

    def _line(self, outcomes: Outcomes) -> str:
        done = f"{len(outcomes.tests)} of {outcomes.total} tests" if outcomes.total else "making the databases"
        return f"{self._name}: {done}, {outcomes.bad()} failed, {time.perf_counter() - self._began:.0f} s"


def _whole(lines: TextIO) -> Iterable[str]:
    """Yield the lines that have come to their end."""
    while True:
        place = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(place)
            return
        yield line


def _environment(told: dict[str, Any]) -> dict[str, str]:
    """Return the environment of Django's process: it imports what this one imports."""
    ours = [str(Path(package.__file__ or "").resolve().parents[1]) for package in (replswitch, django_replswitch)]
    path = [*ours, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "DJANGO_SUITE": json.dumps(told)}
