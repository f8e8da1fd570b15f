"""Jobs that a queue in eager mode runs inside the request that starts them, while the slave lags (M1)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch.decorators import use_slave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tests.test_wsgi.conftest import Board

    Begin = Callable[[], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "begin",
    [nullcontext, lambda: replswitch.resume(replswitch.carry())],
    ids=["as in the recipe for Celery", "with a token of carry()"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_m1_a_job_in_the_process_of_its_request_and_the_request_see_the_writes_of_each_other(
    board: Board, begin: Begin, method: str, browser_of: Any
) -> None:
    found: list[list[int]] = []

    def job() -> None:
        with begin():
            with use_slave():
                found.append(board.numbers())
            with board.db.use_master():
                board.write(3)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["QUERY_STRING"]:
            with board.db.use_master():
                board.write(2)
            job()
            with use_slave():
                found.append(board.numbers())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(map(str, board.numbers())).encode()]

    browser = browser_of(board.behind(application))
    board.pair.lag = 60
    assert len(browser.send(method, "start").cookies) == 1
    assert found == [[1, 2], [1, 2, 3]]
    assert browser.send().body == b"1 2 3"
    assert browser_of(browser.application).send().body == b"1"
