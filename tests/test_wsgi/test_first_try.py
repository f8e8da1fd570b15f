"""The first try of a request that runs again leaves no links and no errors behind, and commits nothing twice (R5)."""

from __future__ import annotations

import contextvars
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from tests.test_wsgi.test_replay import OK, count

from replswitch import SlaveWriteError
from replswitch.decorators import use_master
from replswitch.request.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tests.test_wsgi.conftest import Board, Exchange


@pytest.mark.parametrize("kind", ["raised in a thread pool", "replaced by another error"])
def test_r5_a_refused_write_whose_error_the_application_does_not_catch_causes_the_replay(
    board: Board, send: Callable[..., Exchange], kind: str
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if kind == "raised in a thread pool":
            context = contextvars.copy_context()
            with ThreadPoolExecutor(1) as pool:
                page = pool.submit(context.run, count, board).result()
        else:
            try:
                page = count(board)
            except BaseException as error:
                board.db.rollback()
                raise RuntimeError from error
        start_response(*OK)
        return [page]

    assert send(board.behind(application)).body == b"1 2"
    gc.collect()  # the errors refer to frames, which refer to a transaction on the slave


@pytest.mark.parametrize("has_committed", [False, True])
def test_r5_links_of_the_first_try_are_released_without_garbage_collection(
    board: Board, send: Callable[..., Exchange], has_committed: bool
) -> None:
    numbers = iter(range(100, 200))

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kept: list[BaseException] = []  # frameworks keep errors like this
        try:
            page = count(board)
        except BaseException as error:
            kept.append(error)
            if has_committed:
                board.db.rollback()
                with use_master():
                    board.write(next(numbers))
            raise
        start_response(*OK)
        return [page]

    def replays() -> int:
        return sum(type(each) is Replay for each in gc.get_objects())

    gc.collect()
    gc.disable()
    before = replays()
    try:
        for _ in range(3):
            with suppress(SlaveWriteError):
                send(board.behind(application))
        (slave,) = board.db.database.servers.slaves
        assert len(slave.source._idle) == 1
        assert replays() == before
    finally:
        gc.enable()


class Closing:
    """A body that calls a function when it is closed."""

    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"sorry"])


@pytest.mark.parametrize("closes", ["with a refused write", "with a commit"])
def test_r5_after_close_of_the_first_response_a_request_runs_again_unless_close_has_committed(
    board: Board, send: Callable[..., Exchange], closes: str
) -> None:
    def close() -> None:
        if closes == "with a commit":
            with use_master():
                board.write(board.numbers()[-1] + 1)
        else:
            count(board)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with suppress(BaseException):
            count(board)
        board.db.rollback()
        start_response(*OK)
        return Closing(close)

    if closes == "with a commit":
        with pytest.raises(SlaveWriteError, match="commit it once more"):
            send(board.behind(application))
        assert board.on("master") == [1, 2]
    else:
        assert send(board.behind(application)).told.endswith("reason=replay")
        assert board.on("master") == [1, 2, 3]


def test_r5_a_client_that_disconnects_before_the_first_piece_causes_no_replay(
    board: Board, exchange: Callable[..., Exchange]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return Closing(lambda: count(board))

    started = exchange(board.behind(application))
    with pytest.raises(SlaveWriteError):  # not a Replay, which would end the server's thread
        started.close()
    board.db.rollback()


def test_r5_a_commit_in_a_thread_of_the_first_try_is_not_done_twice(
    board: Board, send: Callable[..., Exchange]
) -> None:
    def write() -> None:
        with use_master():
            board.write(board.numbers()[-1] + 1)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        thread = Thread(target=write)
        thread.start()
        thread.join()
        page = count(board)
        start_response(*OK)
        return [page]

    with pytest.raises(SlaveWriteError):
        send(board.behind(application))
    board.db.rollback()
    assert board.on("master") == [1, 2]
