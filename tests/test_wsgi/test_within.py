"""An application that another one calls, in one process and with a middleware of its own, on the pair."""

from __future__ import annotations

import contextvars
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_wsgi.test_replay import count
from webob import Request

import replswitch
from replswitch import SlaveWriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Board

    Wrap = Callable[..., WSGIApplication]


@pytest.fixture
def inner(board: Board, wrap: Wrap) -> WSGIApplication:
    """The board inside a middleware with another secret and another cookie."""
    return wrap(board.serve, "another secret", cookie_name="inner_updated")


def names(cookies: list[str]) -> set[str]:
    return {cookie.partition("=")[0].rstrip("_123") for cookie in cookies}


def test_m1_a_write_of_a_mounted_application_gets_the_markers_of_both_applications(
    board: Board, inner: WSGIApplication, browser_of: Any
) -> None:
    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (inner if "inner" in environ["QUERY_STRING"] else board.serve)(environ, start_response)

    board.pair.stop_slave()
    browser = browser_of(board.behind(outer))
    answer = browser.send("POST", "inner=1&n=2")
    assert names(answer.cookies) == {"inner_updated", "just_updated"}
    assert browser.send(query="inner=1").body == b"1 2"
    assert browser.send().body == b"1 2"


def test_m1_a_write_of_an_inner_request_is_in_the_marker_of_the_outer_response(
    board: Board, inner: WSGIApplication, browser_of: Any
) -> None:
    told: list[bytes] = []

    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        told.append(Request.blank("/", method="GET").get_response(inner).body)
        if environ["REQUEST_METHOD"] == "POST":
            board.write(2)
            told.append(Request.blank("/", method="GET").get_response(inner).body)
            assert Request.blank("/?n=3", method="POST").get_response(inner).status_code == 302
            with board.db.use_slave():
                told.append(b"%s %s" % (board.db.state.encode(), " ".join(map(str, board.numbers())).encode()))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    board.pair.stop_slave()
    browser = browser_of(board.behind(outer))
    assert names(browser.send("POST").cookies) == {"just_updated"}
    assert told == [b"1", b"1 2", b"slave 1 2 3"]
    browser.send()
    assert told[3:] == [b"1 2 3"], "the visitor's marker is not for the inner request"
    assert browser_of(board.behind(outer)).send().body == b"done"
    assert told[4:] == [b"1"]


def test_m6_a_redirect_of_an_inner_application_without_a_write_sets_no_cookie(
    board: Board, wrap: Wrap, browser_of: Any
) -> None:
    def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.numbers()
        start_response("302 Found", [("Location", "/")])
        return [b""]

    inner = wrap(redirect, "another secret", cookie_name="inner_updated")
    assert browser_of(board.behind(inner)).send("POST").cookies == []


def test_a_request_in_a_switched_block_has_its_own_scope(board: Board, browser_of: Any) -> None:
    board.pair.stop_slave()
    with board.db.use_master():
        board.write(2)
        answer = browser_of(board.application).send()
    assert (answer.body, answer.side) == (b"1", "slave")


def test_m1_a_write_of_an_inner_application_with_enabled_false_is_in_the_marker_of_the_outer_response(
    board: Board, wrap: Wrap, browser_of: Any
) -> None:
    inner = wrap(board.serve, "another secret", cookie_name="inner_updated", enabled=False)
    board.pair.stop_slave()
    browser = browser_of(board.behind(inner))
    answer = browser.send("POST", "n=2")
    assert names(answer.cookies) == {"just_updated"}
    assert browser.send().body == b"1 2"


def in_a_thread(work: Callable[[], object]) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


def in_a_copy_of_the_context(work: Callable[[], object]) -> None:
    context = contextvars.copy_context()
    in_a_thread(lambda: context.run(work))


def in_a_job(work: Callable[[], object]) -> None:
    with replswitch.resume(replswitch.carry()):
        work()


def in_a_job_in_a_thread(work: Callable[[], object]) -> None:
    token = replswitch.carry()

    def job() -> None:
        with replswitch.resume(token):
            work()

    in_a_thread(job)


WAYS = pytest.mark.parametrize("run", [in_a_copy_of_the_context, in_a_job, in_a_job_in_a_thread])


@WAYS
def test_m1_a_request_made_by_a_job_and_the_request_of_the_job_see_the_writes_of_each_other(
    board: Board, inner: WSGIApplication, browser_of: Any, run: Any
) -> None:
    told: list[bytes] = []

    def work() -> None:
        told.append(Request.blank("/", method="GET").get_response(inner).body)
        assert Request.blank("/?n=3", method="POST").get_response(inner).status_code == 302

    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            board.write(2)
            run(work)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(map(str, board.numbers())).encode()]

    board.pair.stop_slave()
    browser = browser_of(board.behind(outer))
    assert names(browser.send("POST").cookies) == {"just_updated"}
    assert told == [b"1 2"], "the inner request missed what the outer one had written"
    assert browser.send().body == b"1 2 3", "the outer request's marker lacks what the inner one has written"


@WAYS
def test_r5_a_request_made_by_a_job_of_the_first_try_is_not_made_twice(
    board: Board, inner: WSGIApplication, browser_of: Any, run: Any
) -> None:
    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        run(lambda: Request.blank("/?n=2", method="POST").get_response(inner))
        board.pair.wait_caught_up()
        page = count(board)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [page]

    with suppress(SlaveWriteError):  # it runs on the master at once, or is declined
        browser_of(board.behind(outer)).send()
    board.db.rollback()
    assert board.on("master").count(2) == 1
