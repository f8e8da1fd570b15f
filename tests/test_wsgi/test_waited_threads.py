"""Threads that a request waits for: their commits outside any request count for the request (M1)."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch.decorators import use_master

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Board

    Run = Callable[[Callable[[], object]], object]


def in_a_thread(work: Callable[[], object]) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


def in_a_pool(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def in_an_executor_of_a_loop(work: Callable[[], object]) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    asyncio.run(main())


def in_a_copy_of_the_context(work: Callable[[], object]) -> None:
    context = contextvars.copy_context()
    in_a_thread(lambda: context.run(work))


@pytest.fixture(params=[in_a_thread, in_a_pool, in_an_executor_of_a_loop, in_a_copy_of_the_context])
def run(request: pytest.FixtureRequest) -> Run:
    """The ways to run a function in another thread and to wait for it."""
    found: Run = request.param
    return found


def behind(board: Board, work: Callable[[], object], run: Run) -> WSGIApplication:
    """Return an application: a POST waits for a thread that does some work, and a GET shows the board."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            run(work)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(map(str, board.numbers())).encode()]

    return board.behind(application)


def test_m1_a_commit_in_a_thread_that_the_request_waits_for_is_marked(board: Board, run: Run, browser_of: Any) -> None:
    browser = browser_of(behind(board, lambda: board.write(2), run))
    board.pair.lag = 60
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"1 2"
    assert browser_of(browser.application).send().body == b"1"


def test_m1_a_transaction_committed_in_a_thread_is_marked(board: Board, run: Run, browser_of: Any) -> None:
    def work() -> None:
        board.db.begin()
        board.write(2)
        board.db.commit()

    browser = browser_of(behind(board, work, run))
    board.pair.lag = 60
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"1 2"


@pytest.mark.parametrize("block", [use_master, lambda: replswitch.resume("")], ids=["use_master", "resume"])
def test_m1_a_commit_in_a_thread_inside_a_block_is_marked(board: Board, block: Any, browser_of: Any) -> None:
    def work() -> None:
        with block():
            board.write(2)

    browser = browser_of(behind(board, work, in_a_pool))
    board.pair.lag = 60
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"1 2"


def test_m1_a_commit_in_a_thread_after_use_master_is_marked(board: Board, browser_of: Any) -> None:
    def work() -> None:
        board.db.use_master()
        board.write(2)
        board.db.revert()  # or the thread's scope, and with it a connection, waits for the garbage collector

    browser = browser_of(behind(board, work, in_a_pool))
    board.pair.lag = 60
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"1 2"


def test_m1_a_thread_that_writes_unrecorded_makes_no_marker(board: Board, browser_of: Any) -> None:
    browser = browser_of(behind(board, replswitch.unrecorded()(lambda: board.write(2)), in_a_pool))
    assert browser.send("POST").cookies == []


def test_m1_a_thread_that_reads_makes_no_marker(board: Board, browser_of: Any) -> None:
    browser = browser_of(behind(board, board.numbers, in_a_pool))
    assert browser.send("POST").cookies == []


# Without mysqlclient, which does not show when a write happened, so an earlier write may count.
@pytest.mark.parametrize("served", ["mariadb", "mysql", "postgresql", "sqlite"], indirect=True)
def test_m1_a_commit_in_a_thread_before_or_after_the_request_makes_no_marker(board: Board, browser_of: Any) -> None:
    with ThreadPoolExecutor(1) as pool:  # the application's pool: its thread and its links are used again
        browser = browser_of(behind(board, board.numbers, lambda work: pool.submit(work).result()))
        pool.submit(board.write, 2).result()
        assert browser.send("POST").cookies == []
        assert browser.send("GET").cookies == []
        pool.submit(board.write, 3).result()
        assert browser.send("POST").cookies == []


def test_m1_commits_in_other_threads_make_no_marker_for_a_get(board: Board, browser_of: Any) -> None:
    """A GET promises to write nothing. Writes of a background thread must not give every visitor a marker."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        in_a_pool(lambda: board.write(2))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    assert browser_of(board.behind(application)).send().cookies == []
