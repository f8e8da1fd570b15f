"""A GET that reads and then writes in a transaction runs once more, on the master (R5)."""

from __future__ import annotations

import contextvars
import gc
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.debug import DebuggedApplication

from replswitch import SlaveWriteError, unrecorded
from replswitch.decorators import use_master
from replswitch.request.replay import ENDPOINTS_KEPT, FORGOTTEN_AFTER, Endpoints, Replay
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Board, Browser, Exchange

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
"""What no server changes."""

OK = ("200 OK", [("Content-Type", "text/plain")])


def count(board: Board) -> bytes:
    """Read the numbers and write the next one, in one transaction."""
    board.db.begin()
    numbers = board.numbers()
    board.write(numbers[-1] + 1)
    page = " ".join(map(str, board.numbers())).encode()
    board.db.commit()
    return page


def counter(board: Board) -> WSGIApplication:
    """Return an application with a page that counts its views."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = count(board)
        start_response(*OK)
        return [page]

    return application


@pytest.fixture
def get(board: Board, browser_of: type[Browser]) -> Callable[..., Exchange]:
    """Return a function that requests a page of an application as a new visitor."""

    def send(application: Any, method: str = "GET", query: str = "", **extra: Any) -> Exchange:
        return browser_of(application).send(method, query, **extra)

    return send


def test_r5_a_view_counter_runs_again_and_counts_once(board: Board, get: Callable[..., Exchange]) -> None:
    application = board.behind(counter(board))
    page = get(application)
    assert (page.code, page.body, page.told.endswith("reason=replay"), len(page.cookies)) == (200, b"1 2", True, 1)
    assert board.on("master") == [1, 2]
    page = get(application)
    assert (page.body, page.told.endswith("reason=learned"), len(page.cookies)) == (b"1 2 3", True, 1)
    assert board.on("master") == [1, 2, 3]
    assert stack() is None


@ON_ONE_SERVER
def test_r5_a_head_request_runs_again(board: Board, get: Callable[..., Exchange]) -> None:
    assert get(board.behind(counter(board)), "HEAD").told.endswith("reason=replay")


@pytest.mark.parametrize("name", ["a generator", "a generator after an empty piece", "an iterator that closes"])
def test_r5_a_body_that_writes_before_its_first_chunk_runs_again(
    board: Board, get: Callable[..., Exchange], name: str
) -> None:
    closed: list[str] = []

    class Body:
        def __init__(self) -> None:
            self._pieces = iter([None, b"."])

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            piece = next(self._pieces)
            return count(board) if piece is None else piece

        def close(self) -> None:
            closed.append(board.db.state)

    def pieces() -> Iterator[bytes]:
        if name == "a generator after an empty piece":
            yield b""
        yield count(board)
        yield b"."

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return Body() if name == "an iterator that closes" else pieces()

    assert get(board.behind(application)).body == b"1 2."
    assert board.on("master") == [1, 2]
    assert closed == (["slave", "master"] if name == "an iterator that closes" else [])


@pytest.mark.parametrize("caught", [Exception, BaseException])
def test_r5_a_slave_write_error_that_the_application_catches_causes_the_replay(
    board: Board, get: Callable[..., Exchange], caught: Any
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            page = count(board)
        except caught:
            board.db.rollback()
            page = b"sorry"
        start_response(*OK)
        return [page]

    assert get(board.behind(application)).body == b"1 2"


@ON_ONE_SERVER
def test_r5_a_write_in_a_thread_pool_causes_the_replay(board: Board, get: Callable[..., Exchange]) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = contextvars.copy_context()
        with ThreadPool(1) as pool:
            try:
                page = pool.apply(context.run, (count, board))
            except SlaveWriteError:
                page = b"sorry"
        gc.collect()  # the pool's error is part of a reference cycle that keeps a transaction on the slave
        start_response(*OK)
        return [page]

    assert get(board.behind(application)).body == b"1 2"


@ON_ONE_SERVER
def test_r5_the_second_try_gets_a_fresh_request(board: Board, get: Callable[..., Exchange]) -> None:
    tries: list[dict[str, Any]] = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        tries.append(dict(environ))
        environ["application.seen"] = environ["PATH_INFO"] = "/changed"
        start_response("500 The first try's", [("X-Try", str(len(tries)))])
        page = count(board)
        start_response(*OK, (None, None, None))
        return [page]

    page = get(board.behind(application))
    assert (page.code, page.answers, page.values("X-Try")) == (200, 1, [])
    assert tries[0] == tries[1]


@ON_ONE_SERVER
def test_r5_with_two_middlewares_a_view_counter_counts_once(board: Board, get: Callable[..., Exchange]) -> None:
    application = board.behind(board.behind(counter(board), cookie_name="inner", debug_header=False))
    assert get(application).body == b"1 2"
    assert board.on("master") == [1, 2]


@ON_ONE_SERVER
def test_r5_the_debugger_of_werkzeug_does_not_show_the_error_of_the_first_try(
    board: Board, get: Callable[..., Exchange]
) -> None:
    page = get(board.behind(DebuggedApplication(counter(board))))
    assert (page.code, page.body) == (200, b"1 2")


@ON_ONE_SERVER
def test_r5_an_endpoint_that_has_stopped_writing_is_forgotten(board: Board, get: Callable[..., Exchange]) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = count(board) if environ["QUERY_STRING"] else b"read"
        board.numbers()
        start_response(*OK)
        return [page]

    behind = board.behind(application)
    assert get(behind, query="write").told.endswith("reason=replay")
    for _ in range(FORGOTTEN_AFTER):
        assert get(behind).side == "master"
    board.pair.wait_caught_up()
    assert get(behind).side == "slave"


class TestDeclined:
    """A commit is never done twice: the error is raised, and the endpoint starts on the master from then on."""

    def refuse(self, board: Board, get: Callable[..., Exchange], application: Any, **options: Any) -> None:
        behind = board.behind(application, **options)
        with pytest.raises(SlaveWriteError):
            get(behind)
        with suppress(Exception):
            board.db.rollback()

    @pytest.mark.parametrize(
        "when",
        ["before", "in a finally", "before, unrecorded"],
        ids=["before the refused write", "in a finally", "unrecorded before the refused write"],
    )
    def test_r5_no_replay_after_another_commit(self, board: Board, get: Callable[..., Exchange], when: str) -> None:
        def commit() -> None:
            with use_master():
                board.write(7)

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                if when == "before":
                    commit()
                    board.pair.wait_caught_up()
                elif when == "before, unrecorded":
                    with unrecorded():
                        commit()
                page = count(board)
            finally:
                if when == "in a finally":
                    board.db.rollback()
                    commit()
            start_response(*OK)
            return [page]

        self.refuse(board, get, application)
        assert board.on("master") == [1, 7]

    @ON_ONE_SERVER
    @pytest.mark.parametrize("how", ["a piece of the body", "write()"])
    def test_r5_no_replay_after_a_part_of_the_response_was_sent(
        self, board: Board, get: Callable[..., Exchange], how: str
    ) -> None:
        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response(*OK)
            if how == "write()":
                write(b"out ")
            else:
                yield b"out "
            yield count(board)

        def writing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response(*OK)(b"out ")
            return [count(board)]

        behind = board.behind(writing if how == "write()" else application)
        with pytest.raises(SlaveWriteError):
            get(behind)
        board.db.rollback()
        assert get(behind).body == b"out 1 2"

    @ON_ONE_SERVER
    def test_r5_no_replay_with_replay_off(self, board: Board, get: Callable[..., Exchange]) -> None:
        self.refuse(board, get, counter(board), replay=False)

    def test_r5_no_replay_of_a_request_with_a_body(self, board: Board, get: Callable[..., Exchange]) -> None:
        with pytest.raises(SlaveWriteError):
            get(board.behind(counter(board)), CONTENT_LENGTH="3")
        board.db.rollback()

    @ON_ONE_SERVER
    @pytest.mark.parametrize("method", ["OPTIONS", "POST"])
    def test_r5_no_replay_of_methods_other_than_get_and_head(
        self, board: Board, get: Callable[..., Exchange], method: str
    ) -> None:
        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            with board.db.use_slave():
                return counter(board)(environ, start_response)

        with pytest.raises(SlaveWriteError):
            get(board.behind(application), method)
        board.db.rollback()


@ON_ONE_SERVER
def test_r5_a_replay_of_another_request_is_raised_as_a_slave_write_error(
    board: Board, get: Callable[..., Exchange]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise Replay(SlaveWriteError("late", server="s", place="p"))

    with pytest.raises(SlaveWriteError, match="late"):
        get(board.behind(application))


def test_r5_a_limited_number_of_endpoints_is_remembered_and_those_in_use_are_kept() -> None:
    endpoints = Endpoints()
    for number in range(ENDPOINTS_KEPT + 5):
        endpoints.learn(number, {"shop"})
        endpoints.used(0, wrote=True)
    assert len(endpoints.known) == ENDPOINTS_KEPT
    assert endpoints.databases(0) == {"shop"}
    assert not endpoints.databases(1)
