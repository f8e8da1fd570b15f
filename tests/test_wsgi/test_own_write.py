"""Own writes are seen: the situations in which other packages fail, on real pairs with real lag.

Each test is named after its situation.
"""

from __future__ import annotations

import http.cookiejar
import logging
import threading
import time
import urllib.request
from contextlib import ExitStack
from email.message import Message
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from replswitch import SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.testing.sessions import SessionPair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from http.client import HTTPResponse
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tests.conftest import Questions
    from tests.test_wsgi.conftest import Board, Browser, Exchange, SendRequest

servers = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)

OK = ("200 OK", [("Content-Type", "text/plain")])


def test_m3_two_gets_after_a_post_see_the_write_while_the_slave_lags(board: Board, browser_of: type[Browser]) -> None:
    board.pair.stop_slave()
    browser = browser_of(board.application)
    pages = [browser.post("n=2"), *(browser.send() for _ in range(10))]
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    assert [page.body for page in pages] == [b"1 2"] * 11
    assert {page.side for page in pages} == {"master"}
    assert all("reason=marker" in page.told for page in pages)


def test_other_visitors_read_from_the_slave_during_the_lag(board: Board, browser_of: type[Browser]) -> None:
    board.pair.stop_slave()
    browser_of(board.application).post("n=2")
    pages = [browser_of(board.application).send() for _ in range(5)]
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    assert [page.body for page in pages] == [b"1"] * 5
    assert {page.side for page in pages} == {"slave"}


def test_m3_no_page_is_stale_and_reads_return_to_the_slave_once_it_has_the_write(
    board: Board, browser_of: type[Browser]
) -> None:
    board.pair.lag = 60
    browser = browser_of(board.behind(board.serve, cookie_max_age=60))
    assert browser.post("n=2").body == b"1 2"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    before = [browser.send().side]
    after: list[str] = []
    board.pair.lag = 0
    while len(after) < 5:  # the time-out of the tests is the end of one that stays on the master
        slave_has_it = board.slave_has(browser.cookie or "")
        page = browser.send()
        assert page.body == b"1 2"
        (after if slave_has_it else before).append(page.side)
        time.sleep(0.02)
    assert "master" in before
    assert set(after) == {"slave"}, "the slave had the write, and did not serve"


def test_m2_with_replication_stopped_an_old_write_is_still_seen(board: Board, browser_of: type[Browser]) -> None:
    board.pair.stop_slave()
    browser = browser_of(board.behind(board.serve, cookie_max_age=1))  # the positions hold longer than that
    pages = [browser.post("n=2")]
    time.sleep(1.5)
    pages.append(browser.send())
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    assert [page.body for page in pages] == [b"1 2"] * 2


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content", "422 Unprocessable", "500 Oops"])
def test_m1_a_get_after_a_post_without_a_redirect_sees_the_write(
    board: Board, browser_of: type[Browser], status: str
) -> None:
    board.pair.stop_slave()
    browser = browser_of(board.application)
    assert browser.send("POST", f"n=2&status={status}").status == status
    pages = [browser.send() for _ in range(3)]
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    assert [page.body for page in pages] == [b"1 2"] * 3


def test_m3_a_page_and_its_parallel_xhrs_after_a_redirect_see_the_write(
    board: Board, browser_of: type[Browser]
) -> None:
    board.pair.stop_slave()
    browser = browser_of(board.application)
    browser.send("POST", "n=2")
    together = threading.Barrier(6)
    pages: list[bytes] = []

    def fetch() -> None:
        same = browser_of(board.application, dict(browser.jar))
        for _ in range(3):
            together.wait(10)
            pages.append(same.send().body)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"
    assert pages == [b"1 2"] * 18


def test_m4_the_writes_of_parallel_posts_of_one_visitor_are_all_seen(board: Board, browser_of: type[Browser]) -> None:
    board.pair.stop_slave()
    together = threading.Barrier(3)
    browser = browser_of(board.application)

    def write(number: int) -> None:
        together.wait(10)
        browser.keep(browser_of(board.application).send("POST", f"n={number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(browser.jar) == 3  # under a name of its own each (M4)
    assert browser.send().body == b"1 2 3 4"
    for name in list(browser.jar):  # any one of them is enough to see all that was written before it
        assert browser_of(board.application, {name: browser.jar[name]}).send().side == "master"


class CookieJar(http.cookiejar.CookieJar):
    """A browser's cookies, by the rules that Python's own client keeps to."""

    request = urllib.request.Request("http://board.example/")

    def keep(self, answer: Exchange) -> None:
        headers = Message()
        for name, value in answer.headers:
            headers.add_header(name, value)
        self.extract_cookies(cast("HTTPResponse", SimpleNamespace(info=lambda: headers)), self.request)

    def header(self) -> str:
        request = urllib.request.Request(self.request.full_url)
        self.add_cookie_header(request)
        return str(request.get_header("Cookie"))


def test_m4_the_writes_of_two_posts_are_seen_although_their_responses_arrive_in_the_wrong_order(
    board: Board, exchange: SendRequest, send: SendRequest
) -> None:
    """M4: the marker of the first, which arrives last, is not all that is left."""
    jar = CookieJar()
    first = exchange(board.application, "POST", "n=2")
    board.pair.wait_caught_up()
    board.pair.stop_slave()  # it has the one, and not the other
    second = exchange(board.application, "POST", "n=3")
    jar.keep(second.finish())
    jar.keep(first.finish())
    assert send(board.application, cookie=jar.header()).body == b"1 2 3"
    assert board.on("slave") == [1, 2], "the slave did not lag, so nothing was tested"
    board.pair.start_slave()
    board.pair.wait_caught_up()
    page = send(board.application, cookie=jar.header())
    assert (page.body, page.side) == (b"1 2 3", "slave")


def test_r2_an_unsigned_cookie_does_not_choose_the_state(board: Board, send: SendRequest) -> None:
    for value in ("true", "1", '"true"', "master", ""):
        page = send(board.application, cookie=f"just_updated={value}")
        assert (page.side, page.body, page.cookies) == ("slave", b"1", [])


@pytest.mark.parametrize("header", ["HTTP_X_REPLICATED_STATE", "HTTP_REPLSWITCH", "HTTP_JUST_UPDATED"])
def test_r2_a_request_header_that_names_a_state_does_not_choose_the_state(
    board: Board, send: SendRequest, header: str
) -> None:
    written = send(board.application, "POST", "n=2", **{header: "slave"})
    assert (written.code, written.side) == (302, "master")
    assert board.on("master") == [1, 2]
    assert send(board.application, **{header: "master"}).side == "slave"


def test_s8_a_get_that_writes_moves_to_the_master_and_is_marked(
    board: Board, browser_of: type[Browser], caplog: pytest.LogCaptureFixture
) -> None:
    board.pair.stop_slave()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["QUERY_STRING"]:
            board.write(2)
        start_response(*OK)
        return [repr(board.numbers()).encode()]

    browser = browser_of(board.behind(application))
    with caplog.at_level(logging.WARNING, "replswitch"):
        page = browser.send("GET", "write")
    assert (page.body, page.code) == (b"[1, 2]", 200)
    assert "reason=moved-write" in page.told
    (record,) = caplog.records
    assert "A write in slave state was moved to the master" in record.getMessage()
    assert " in write." in record.getMessage()  # the place in the application
    assert len(page.cookies) == 1
    assert browser.send().body == b"[1, 2]"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


def test_s8_a_get_that_writes_after_a_read_of_its_transaction_raises_if_replay_is_not_possible(
    board: Board, send: SendRequest
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.db.begin()
        try:
            board.numbers()
            board.write(2)
        except SlaveWriteError as error:
            start_response("409 Conflict", OK[1])
            return [str(error).encode()]
        finally:
            board.db.rollback()
        return []

    answer = send(board.behind(application, replay=False))
    assert answer.code == 409
    assert b"may be stale" in answer.body
    assert answer.cookies == []
    assert board.on("master") == [1]


def test_r3_a_decorated_function_inside_a_request_restores_the_state_of_the_request(
    board: Board, send: SendRequest
) -> None:
    seen: list[str] = []

    @use_slave
    def read() -> None:
        seen.append(board.db.state)
        board.numbers()

    @use_slave
    def fail() -> None:
        seen.append(board.db.state)
        raise LookupError

    @use_slave
    def nested() -> None:
        with use_master(), use_master():
            seen.append(board.db.state)
        with board.db.use_master():
            seen.append(board.db.state)
        seen.append(board.db.state)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        read()
        seen.append(board.db.state)
        with pytest.raises(LookupError):
            fail()
        seen.append(board.db.state)
        nested()
        seen.append(board.db.state)
        board.write(2)
        start_response(*OK)
        return []

    answer = send(board.behind(application), "POST")
    assert seen == ["slave", "master", "slave", "master", "master", "master", "slave", "master"]
    assert len(answer.cookies) == 1
    assert board.on("master") == [1, 2]


def test_r3_after_a_decorated_function_a_get_is_in_slave_state_again(board: Board, send: SendRequest) -> None:
    @use_master
    def latest() -> list[int]:
        return board.numbers()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return [repr((board.numbers(), latest(), board.numbers())).encode()]

    board.pair.stop_slave()
    send(board.application, "POST", "n=2")
    page = send(board.behind(application))
    assert page.body == b"([1], [1, 2], [1])"
    assert [part.partition(";")[0].strip() for part in page.told.split(",")] == ["slave", "master", "slave"]
    assert page.cookies == []


def test_use_slave_in_a_request_with_a_marker_reads_the_own_write(board: Board, browser_of: type[Browser]) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with use_slave(), board.db.use_slave():
            start_response(*OK)
            return [repr(board.numbers()).encode()]

    board.pair.stop_slave()
    browser = browser_of(board.application)
    browser.send("POST", "n=2")
    page = browser_of(board.behind(application), browser.jar).send()
    assert page.body == b"[1, 2]"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


def test_s8_a_read_after_a_moved_write_in_the_same_request_sees_the_write(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.write(2)
        with use_slave():
            found = board.numbers()
        start_response(*OK)
        return [repr(found).encode()]

    board.pair.stop_slave()
    answer = send(board.behind(application), "POST")
    assert answer.body == b"[1, 2]"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


@pytest.mark.parametrize(("method", "found"), [("GET", [1]), ("POST", [1, 2])], ids=["GET", "POST"])
def test_s9_the_queries_of_a_streaming_response_run_in_the_state_of_its_request(
    board: Board, send: SendRequest, method: str, found: list[int]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response(*OK)
        for _ in range(3):
            yield repr(board.numbers()).encode()

    board.pair.stop_slave()
    send(board.application, "POST", "n=2")
    board.db.debug = True
    page = send(board.behind(application), method)
    assert page.pieces == [repr(found).encode()] * 3
    assert {query["db"] for query in board.db.queries} == {"slave" if method == "GET" else "master"}
    assert page.side == ("slave" if method == "GET" else "master")


@servers
def test_p1_a_slave_is_asked_its_position_once_and_no_other_query_is_added(
    board: Board, questions: Questions, browser_of: type[Browser]
) -> None:
    pair = board.pair
    assert isinstance(pair, SessionPair)
    browser_of(board.application).send()
    browser_of(board.application).post("n=2")  # both links are open from here on
    pair.wait_caught_up()
    pair.stop_slave()
    behind = browser_of(board.application)
    behind.post("n=1000")
    behind.send()  # and that to the master which refuses writes
    select, insert = "SELECT n FROM wsgi_message ORDER BY n", "INSERT INTO wsgi_message VALUES (3)"
    ask = questions.position
    with ExitStack() as recording:
        master = recording.enter_context(pair.statements("master"))
        slave = recording.enter_context(pair.statements("slave"))
        browser = browser_of(board.application)
        browser.send()
        browser.post("n=3")
        browser.send()
        pair.start_slave()
        pair.wait_caught_up()
        browser.send()
        browser.send()
        browser_of(board.application).send()
    told = [] if board.driver == "pymysql" else [questions.written]  # by the answer, or when asked
    assert master == [insert, *told, select, select]
    assert slave == [select, ask, ask, ask, select, select, select]


@servers
def test_a_request_without_a_query_opens_no_connection(board: Board, browser_of: type[Browser]) -> None:
    pair = board.pair
    assert isinstance(pair, SessionPair)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return [board.db.state.encode()]

    with ExitStack() as recording:
        master = recording.enter_context(pair.statements("master"))
        slave = recording.enter_context(pair.statements("slave"))
        browser = browser_of(board.behind(application))
        assert browser.send("POST").body == b"master"
        assert browser.send().body == b"slave"
    assert master == slave == []
