"""Django processes that take turns: what the benchmarks of the Django binding share.

Settings are a process's own, so projects that differ in them run in processes of their own. The batches of all sides
still take turns, and each process measures its batches by itself.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from django_project import MULTIDB, OURS, REPLICATED, STOCK, Project
from ratio import Row, Times

from replswitch.testing import MariaDBPair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The drivers by the names of their distributions.
DRIVERS: Final = {"mysqlclient": "MySQLdb", "PyMySQL": "pymysql"}

#: How long a batch should take, in seconds: the way to another process, and what is cold there, must not count.
BATCH: Final = 0.005


class Worker:
    """A process with a Django project; see `django_worker.Doer` for what it does.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        script = str(Path(__file__).with_name("django_worker.py"))
        self._process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._write(project.as_dict())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            pass  # it ends with its stdin

    def do(self, name: str, **arguments: Any) -> Any:
        """Let the process do something, and return what it answers."""
        self._write([name, arguments])
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("A worker has ended. What is above says why.")
        return json.loads(line)

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()


@contextmanager
def django_pair() -> Iterator[MariaDBPair]:
    """Start a pair with the tables of the project."""
    with MariaDBPair() as pair:
        with Worker(project_of(pair, STOCK)) as worker:
            worker.do("create")
        pair.wait_caught_up()
        yield pair


def project_of(pair: MariaDBPair, built_with: str, driver: str = "mysqlclient", **settings: bool) -> Project:
    """Make a project on a pair."""
    return Project(built_with, DRIVERS[driver], pair.master, pair.slaves[0], **settings)


@contextmanager
def workers(projects: Iterable[Project]) -> Iterator[list[Worker]]:
    """Start a process for each project."""
    with ExitStack() as stack:
        yield [stack.enter_context(Worker(project)) for project in projects]


def alternate(sides: dict[str, tuple[Worker, str]], rounds: int) -> Times:
    """Run the sides in turn, each round in another order; `ratio.measure` for sides in several processes.

    Args:
        sides: by their names, the process and what it does; see `django_worker.Doer`.
        rounds: how many batches of each.
    """
    number = min(_number(worker, side) for worker, side in sides.values())
    times: Times = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            worker, side = sides[name]
            times[name].append(worker.do("batch", side=side, number=number) / number)
    return times


def _number(worker: Worker, side: str) -> int:
    worker.do("batch", side=side, number=1)  # what is made on first use is not what is measured
    number = 20
    quickest: float = min(worker.do("batch", side=side, number=number) for _ in range(5))
    return max(1, round(BATCH / quickest * number))
