"""The faults that the visitors of `benchmarks/processes` notice."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from processes.command import main
from processes.installed import Installed
from processes.pages import ECHO, Pages, Values
from processes.run import Combination, Figures, run
from processes.servers import VARIANTS
from processes.visitors import Seen, visit

from replswitch.testing import MariaDBPair

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MASTER, SLAVE = 1, 2
BY_NAME = {variant.name: variant for variant in VARIANTS}


class Memory:
    """A database in which the slave serves every second query; it can be broken."""

    def __init__(self) -> None:
        self.notes: defaultdict[str, list[int]] = defaultdict(list)
        self.server = itertools.cycle((MASTER, SLAVE))
        self.break_row: Callable[[tuple[Any, ...]], tuple[Any, ...]] = lambda row: row

    def rows(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        if sql == ECHO:
            return [self.break_row((values["echo"], next(self.server), 7, 0))]
        token = str(values["token"])
        return [self.break_row((token, number)) for number in reversed(self.notes[token])][:20]

    def write(self, sql: str, values: Values) -> None:
        self.notes[str(values["token"])].append(int(values["number"]))

    def use_master(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def use_slave(self) -> AbstractContextManager[Any]:
        return nullcontext()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Silent(WSGIRequestHandler):
    def log_message(self, *about: object) -> None:
        pass


@contextmanager
def served(memory: Memory) -> Iterator[int]:
    pages = Pages(memory)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        values = dict(parse_qsl(environ["QUERY_STRING"]))
        answer = pages.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], values)
        start_response(f"{answer.status} told", answer.headers)
        return [answer.body]

    with make_server("127.0.0.1", 0, application, Server, Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def memory() -> Memory:
    return Memory()


def seen_of(memory: Memory) -> Seen:
    seen = Seen()
    with served(memory) as port:
        visit(port, seen, visitors=4, requests=60, pause=0)
    return seen


def test_a_run_with_a_correct_application_has_no_fault(memory: Memory) -> None:
    seen = seen_of(memory)
    assert seen.requests >= 60
    assert (seen.foreign, seen.stale, seen.failed, seen.examples) == (0, 0, 0, [])
    assert seen.users.keys() == {(MASTER, 7), (SLAVE, 7)}
    assert seen.reads == sum(seen.on_server.values())


def test_an_answer_with_the_rows_of_another_query_is_counted_as_foreign(memory: Memory) -> None:
    memory.break_row = lambda row: ("somebody else's", *row[1:])
    seen = seen_of(memory)
    assert seen.foreign == seen.requests


def test_an_answer_with_the_rows_of_another_visitor_is_counted_as_foreign(memory: Memory) -> None:
    memory.break_row = lambda row: ("f" * 32, row[1]) if len(row) == 2 else row
    assert seen_of(memory).foreign > 10


def test_an_answer_that_lacks_a_write_is_counted_as_stale(memory: Memory) -> None:
    memory.break_row = lambda row: (row[0], row[1] - 1) if len(row) == 2 else row
    seen = seen_of(memory)
    assert seen.stale > 10
    assert (seen.foreign, seen.failed) == (0, 0)


def test_errors_are_counted_as_failed_and_the_visitors_stop_early(memory: Memory) -> None:
    def fail(row: tuple[Any, ...]) -> tuple[Any, ...]:
        raise OSError("packet sequence number wrong")

    memory.break_row = fail
    seen = seen_of(memory)
    assert 6 <= seen.failed < 60
    assert "packet sequence number wrong" in seen.examples[0]


def test_a_server_that_does_not_answer_is_a_failure() -> None:
    with served(Memory()) as port:
        pass
    seen = Seen()
    visit(port, seen, visitors=1, requests=5, pause=0)
    assert seen.failed


def figures(name: str = "gunicorn-sync-preload") -> Figures:
    """Figures with which nothing is wrong."""
    seen = Seen(requests=2000, reads=1500)
    seen.users.update({(MASTER, 1): {100}, (SLAVE, 1): {101}})
    return Figures(Combination(BY_NAME[name], "connect", "pymysql"), seen, before=9, after=9, on_slave=0.5)


def test_each_figure_outside_its_limit_is_a_fault_of_the_run() -> None:
    assert figures().faults == []
    for name, value, fault in (
        ("shared", 1, "1 connections in use in two processes"),
        ("ended", 2, "2 connections of the parent ended"),
        ("after", 10, "10 connections are open, 9 were"),
        ("on_slave", 0.0, "0% of the reads were on the slave, so only one side was tested"),
        ("problem", "did not start", "did not start"),
    ):
        wrong = figures()
        setattr(wrong, name, value)
        assert wrong.faults == [fault]


def test_with_greenlets_more_connections_may_be_open_after_the_run_up_to_the_size_of_the_pools() -> None:
    late = figures("gunicorn-gevent")
    late.after = 48
    assert late.faults == []
    late.after = 49
    assert late.faults == ["49 connections are open, 9 were"]


def test_a_run_served_by_one_process_is_a_fault() -> None:
    alone = figures()
    alone.seen.users[SLAVE, 1] = {100}
    assert alone.faults == ["1 process has served, so nothing was tested"]
    threads = figures("waitress")
    threads.seen.users[SLAVE, 1] = {100}
    assert threads.faults == []


def test_a_web_server_that_cannot_be_installed_is_tried_once_and_is_a_fault_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(*command: str) -> str:
        tried.append(command)
        return "there is no compiler"

    monkeypatch.setattr("processes.installed._run", refuse)
    installed, pair = Installed(tmp_path / "servers"), MariaDBPair()  # which is not started
    for side in ("connect", "flask"):
        combination = Combination(BY_NAME["uwsgi"], side, "pymysql")
        assert run(combination, pair, installed, requests=1, log=tmp_path / "log").faults == ["there is no compiler"]
    assert len(tried) == 1


def test_help_lists_all_servers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = "".join(capsys.readouterr().out.split())
    assert all(name in told for name in BY_NAME)
