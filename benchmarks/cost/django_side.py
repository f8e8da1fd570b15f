"""Django processes that take turns, for the benchmarks of the Django binding.

Settings are a process's own, so projects that differ in them run in processes of their own. The batches of all sides
still take turns, and each process measures its batches by itself.
"""

from __future__ import annotations

import json
import random
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from shared.process import command, environment

from cost.django_project import STOCK, Project
from replswitch.testing import MariaDBPair, PostgreSQLPair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cost.ratio import Times

#: The drivers of MySQL by the names of their distributions.
DRIVERS: Final = {"mysqlclient": "MySQLdb", "PyMySQL": "pymysql"}

_MODULES: Final = {**DRIVERS, "psycopg": "psycopg"}

#: How long a batch should take, in seconds: the way to another process, and what is cold there, must not count.
BATCH: Final = 0.005


class Worker:
    """A process with a Django project; see `cost.django_worker.Doer` for what it does.

    Args:
        project: the project.
        seed: of the hashes. Processes that are compared have the same, or their dictionaries differ.
    """

    def __init__(self, project: Project, seed: int = 0) -> None:
        self._process = subprocess.Popen(
            command("cost.django_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(PYTHONHASHSEED=str(seed)),
        )
        self._write(project.as_dict())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            pass  # it ends with its stdin

    def do(self, name: str, **arguments: Any) -> Any:
        """Call a method in the process, and return its result."""
        self._write([name, arguments])
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("A worker has ended. The lines above have the reason.")
        return json.loads(line)

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()


@contextmanager
def django_pair(driver: str = "mysqlclient") -> Iterator[Any]:
    """Start a pair with the tables of the project."""
    with PostgreSQLPair() if driver == "psycopg" else MariaDBPair() as pair:
        with Worker(project_of(pair, STOCK, driver)) as worker:
            worker.do("create")
        pair.wait_caught_up()
        yield pair


def project_of(pair: Any, built_with: str, driver: str = "mysqlclient", **settings: Any) -> Project:
    """Make a project on a pair."""
    return Project(built_with, _MODULES[driver], pair.master, pair.slaves[0], **settings)


@contextmanager
def workers(projects: Iterable[Project], seed: int = 0) -> Iterator[list[Worker]]:
    """Start a process for each project."""
    with ExitStack() as stack:
        yield [stack.enter_context(Worker(project, seed)) for project in projects]


def alternate(sides: dict[str, tuple[Worker, str]], rounds: int) -> tuple[Times, Times]:
    """Run the sides in turn, each round in another order; `cost.ratio.measure` for sides in several processes.

    Connections are fresh each time.

    Args:
        sides: by their names, the process and what it does; see `cost.django_worker.Doer`.
        rounds: how many batches of each.

    Returns:
        the times that went by, and the times of the processor in them. What the server does and how long the way to
        it is are in the first alone, and so is whatever else the machine does.
    """
    for worker, _ in sides.values():
        worker.do("close_connections")
    number = min(_number(worker, side) for worker, side in sides.values())
    elapsed: Times = {name: [] for name in sides}
    worked: Times = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            worker, side = sides[name]
            for times, seconds in zip((elapsed, worked), worker.do("batch", side=side, number=number), strict=True):
                times[name].append(seconds / number)
    return elapsed, worked


def extend(times: Times, more: Times) -> None:
    """Add the batches of another group."""
    for name, batches in more.items():
        times.setdefault(name, []).extend(batches)


def _number(worker: Worker, side: str) -> int:
    worker.do("batch", side=side, number=1)  # the first use is not measured
    number = 20
    quickest: float = min(worker.do("batch", side=side, number=number)[0] for _ in range(5))
    return max(1, round(BATCH / quickest * number))
