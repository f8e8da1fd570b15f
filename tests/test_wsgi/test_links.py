"""Commits, links and transactions of a request: what is recorded, what is let go, and what never leaks (M1, M7, S9)."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from tests.eventually import eventually

import replswitch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack
from replswitch.testing.sessions import SessionPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Board, Browser, SendRequest

    from replswitch import Connection

# Not on SQLite: its writers wait for each other, and it has no counters.
servers = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)

# A MySQL says what it has written itself, and not what a session has. So with mysqlclient, which hears nothing of it,
# a statement that may have written counts where anybody has written since the link was asked last: here, at all.
unless_unseen = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "postgresql", "sqlite"], indirect=True
)

TEXT = [("Content-Type", "text/plain")]


def insert(board: Board, number: int) -> Iterator[None]:
    """A transaction with a rest between its statements."""
    board.db.begin()
    board.write(number)
    yield
    board.db.commit()


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings that replswitch has logged so far."""
    caplog.set_level(logging.WARNING, "replswitch")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("replswitch")]


# Commits and the marker


@pytest.mark.parametrize("how", ["list", "generator", "empty pieces first", "write", "generator that writes"])
def test_m7_a_commit_before_the_first_piece_is_in_the_headers(board: Board, send: SendRequest, how: str) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        if how == "write":
            commit()
            write(b"done")
        if how in ("list", "write"):
            commit()
            return [b"done"]
        return pieces(write)

    def pieces(write: Callable[[bytes], object]) -> Iterator[bytes]:
        if how == "empty pieces first":
            yield b""
        commit()
        if how == "empty pieces first":
            yield b""
        if how == "generator that writes":
            write(b"done")
        yield b"done"

    def commit() -> None:
        board.db.begin()
        board.write(10 + len(board.numbers()))
        board.db.commit()

    if how == "write":  # the list that follows it is a matter of its own
        answer = send(board.behind(lambda *request: iter(application(*request))), "POST")
    else:
        answer = send(board.behind(application), "POST")
    assert answer.body.startswith(b"done")
    assert len(answer.cookies) == 1


def test_m7_a_commit_after_the_headers_is_logged_once(
    board: Board, send: SendRequest, warnings_of: Callable[[], list[str]]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"one"
        board.write(2)
        yield b"two"
        board.write(3)

    answer = send(board.behind(application), "POST")
    assert answer.cookies == []
    (warning,) = warnings_of()
    assert warning.startswith("A write was committed after the response's headers were sent, at ")
    assert " in write." in warning  # the place in the application
    assert board.on("master") == [1, 2, 3]


def test_m7_a_commit_in_close_is_logged_once(
    board: Board, send: SendRequest, warnings_of: Callable[[], list[str]]
) -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            board.write(2)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return Body([b"one"])

    answer = send(board.behind(application), "POST")
    assert (answer.body, answer.cookies) == (b"one", [])
    assert len(warnings_of()) == 1
    assert board.on("master") == [1, 2]


def test_m7_of_two_commits_the_one_before_the_headers_is_marked_and_the_other_logged(
    board: Board, send: SendRequest, warnings_of: Callable[[], list[str]]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        board.write(2)
        yield b"one"
        board.write(3)

    assert len(send(board.behind(application), "POST").cookies) == 1
    assert len(warnings_of()) == 1


@unless_unseen
def test_m6_a_request_that_writes_nothing_sets_no_cookie(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = board.numbers()
        with board.db.cursor() as cursor:
            cursor.execute("UPDATE wsgi_message SET n = 7 WHERE n = 700")
            cursor.execute("DELETE FROM wsgi_message WHERE n = 700")
        start_response("302 Found", [*TEXT, ("Location", "/")])
        return [repr(found).encode()]

    answer = send(board.behind(application), "POST")
    assert (answer.side, answer.body, answer.cookies) == ("master", b"[1]", [])


@unless_unseen
def test_m1_a_write_that_was_rolled_back_makes_no_marker(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.db.begin()
        board.write(2)
        board.db.rollback()
        start_response("302 Found", [*TEXT, ("Location", "/")])
        return []

    assert send(board.behind(application), "POST").cookies == []
    assert board.on("master") == [1]


def test_m6_a_request_that_only_reads_sets_no_cookie_after_a_request_that_wrote(
    board: Board, send: SendRequest
) -> None:
    assert len(send(board.application, "POST", "n=2").cookies) == 1
    assert send(board.application).cookies == []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.numbers()
        start_response("302 Found", TEXT)
        return []

    assert send(board.behind(application), "POST").cookies == []


def test_a_write_outside_requests_marks_no_request(board: Board, send: SendRequest) -> None:
    board.write(2)
    with use_master():
        board.write(3)
    assert send(board.application).cookies == []


def test_an_error_after_a_commit_is_raised_unchanged(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.write(2)
        raise LookupError

    with pytest.raises(LookupError):
        send(board.behind(application), "POST")
    assert board.on("master") == [1, 2]
    assert send(board.application).cookies == []


# Transactions that are left open


def leave_open(board: Board, number: int) -> None:
    board.db.begin()
    board.write(number)


@pytest.mark.parametrize("ending", ["list", "generator", "client gone", "error", "error in the body"])
def test_a_transaction_left_open_is_rolled_back(
    board: Board, exchange: SendRequest, send: SendRequest, warnings_of: Callable[[], list[str]], ending: str
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        if ending in ("list", "error"):
            leave_open(board, 2)
        if ending == "error":
            raise LookupError
        return [b"one"] if ending == "list" else pieces()

    def pieces() -> Iterator[bytes]:
        leave_open(board, 2)
        yield b"one"
        if ending == "error in the body":
            raise LookupError

    served = board.behind(application)
    if ending.startswith("error"):
        with pytest.raises(LookupError):
            send(served, "POST")
    elif ending == "client gone":
        answer = exchange(served, "POST")
        answer.step()
        answer.close()
    else:
        assert send(served, "POST").cookies == []
    assert warnings_of() == [
        "A request ended with an open transaction, which was rolled back. Commit or roll back in the request."
    ]
    assert board.on("master") == [1]
    assert send(board.application, "POST", "n=3").code == 302
    assert board.on("master") == [1, 3]
    board.write(4)
    assert board.on("master") == [1, 3, 4]


def test_s11_autocommit_turned_off_by_a_request_is_on_in_the_next(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        board.db.autocommit(False)
        board.write(2)
        start_response("200 OK", TEXT)
        return []

    assert send(board.behind(application), "POST").cookies == []
    assert board.db.get_autocommit()
    send(board.application, "POST", "n=3")
    assert board.on("master") == [1, 3]


@pytest.mark.parametrize("where", ["in the next request", "outside of requests"])
def test_a_transaction_left_open_by_a_request_that_ended_in_another_thread_is_not_used(
    board: Board, exchange: SendRequest, send: SendRequest, where: str
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        leave_open(board, 2)
        start_response("200 OK", TEXT)
        yield b"one"
        yield b"two"

    answer = exchange(board.behind(application), "POST")
    answer.step()
    thread = threading.Thread(target=answer.close)
    thread.start()
    thread.join()
    if where == "outside of requests":
        board.write(3)
    else:
        send(board.application, "POST", "n=3")
    assert board.on("master") == [1, 3]


def test_a_transaction_left_open_by_a_request_that_changed_its_thread_is_logged(
    board: Board, exchange: SendRequest, warnings_of: Callable[[], list[str]]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        board.db.begin()
        board.write(2)
        yield b"one"
        board.db.commit()  # of what: this is another thread
        yield b"two"

    answer = exchange(board.behind(application), "POST")
    answer.step()
    thread = threading.Thread(target=answer.finish)
    thread.start()
    thread.join()
    board.numbers()  # this thread continues with something else
    assert board.on("master") == [1, 2] or any("which was rolled back" in warning for warning in warnings_of())


@pytest.fixture
def manual(board: Board) -> Iterator[Connection]:
    """The board's connection is one without autocommit."""
    with replswitch.connect(
        master=board.pair.master, slaves=board.pair.slaves, driver=board.driver, autocommit=False
    ) as db:
        board.db = db
        yield db


def test_m1_without_autocommit_a_request_that_commits_is_marked(
    manual: Connection, board: Board, browser_of: type[Browser]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            board.write(2)
        start_response("200 OK", TEXT)
        page = repr(board.numbers()).encode()
        manual.commit()
        return [page]

    board.pair.stop_slave()
    browser = browser_of(board.behind(application))
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"[1, 2]"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


@pytest.mark.parametrize("outside", [False, True], ids=["without a read before", "after a read outside of requests"])
def test_without_autocommit_an_uncommitted_write_is_rolled_back_after_the_request(
    manual: Connection, board: Board, send: SendRequest, outside: bool
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        manual.commit()
        board.write(int(environ["QUERY_STRING"][2:]))
        if environ["QUERY_STRING"] == "n=3":
            manual.commit()
        start_response("200 OK", TEXT)
        return []

    if outside:
        board.numbers()  # as at the start of an application; its transaction belongs to no request
    assert send(board.behind(application), "POST", "n=2").cookies == []
    assert len(send(board.behind(application), "POST", "n=3").cookies) == 1
    manual.commit()
    assert board.on("master") == [1, 3]


# Responses that share a thread


def test_interleaved_responses_in_one_thread_read_in_the_state_of_their_own_request(
    board: Board, exchange: SendRequest
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        for _ in range(3):
            yield repr(board.numbers()).encode()

    board.pair.stop_slave()
    board.write(2)
    served = board.behind(application)
    reader, writer = exchange(served, "GET"), exchange(served, "POST")
    for _ in range(4):
        reader.step()
        writer.step()
    reader.close()
    writer.close()
    assert reader.pieces == [b"[1]"] * 3
    assert writer.pieces == [b"[1, 2]"] * 3
    assert (reader.side, writer.side) == ("slave", "master")


def test_m1_a_commit_of_one_of_two_interleaved_responses_marks_that_response(
    board: Board, exchange: SendRequest
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("302 Found", TEXT)
        board.numbers()
        if environ["QUERY_STRING"]:
            board.write(2)
        return iter([b"one"])

    served = board.behind(application)
    writing, reading = exchange(served, "POST", "write"), exchange(served, "POST")
    assert len(writing.finish().cookies) == 1
    assert reading.finish().cookies == []


def streaming_transaction(board: Board) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        for _ in insert(board, 2):
            yield b"one"

    return board.behind(application)


def test_an_open_transaction_of_one_response_is_not_read_by_another_in_its_thread(
    board: Board, exchange: SendRequest, send: SendRequest
) -> None:
    streaming = exchange(streaming_transaction(board), "POST")
    streaming.step()
    page = send(board.application)
    assert (page.body, page.side) == (b"1", "slave")
    streaming.finish()
    assert board.on("master") == [1, 2]


@pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient", "postgresql"], indirect=True
)
def test_a_write_does_not_join_the_open_transaction_of_another_response_in_its_thread(
    board: Board, exchange: SendRequest, send: SendRequest
) -> None:
    streaming = exchange(streaming_transaction(board), "POST")
    streaming.step()
    assert len(send(board.application, "POST", "n=3").cookies) == 1
    streaming.close()  # the client has gone away: what was open is rolled back
    assert board.on("master") == [1, 3]


def test_a_request_inside_a_request_does_not_end_the_outer_transaction(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = [send(board.application).body for _ in insert(board, 2)]
        start_response("200 OK", TEXT)
        return found

    answer = send(board.behind(application), "POST")
    assert answer.body in (b"1", b"1 2")
    assert board.on("master") == [1, 2]
    assert len(answer.cookies) == 1


def test_two_nested_middlewares_set_one_marker_and_both_read_the_marker(
    board: Board, browser_of: type[Browser]
) -> None:
    board.pair.stop_slave()
    browser = browser_of(board.behind(board.application))
    assert browser.post("n=2").body == b"1 2"
    assert browser.send().body == b"1 2"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


def test_s9_a_body_iterated_in_another_thread_has_the_state_of_the_request_and_is_marked(
    board: Board, exchange: SendRequest
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        board.write(2)
        yield repr(board.numbers()).encode()
        with use_slave():
            yield repr(board.numbers()).encode()

    board.pair.stop_slave()
    answer = exchange(board.behind(application), "POST")
    thread = threading.Thread(target=answer.finish)
    thread.start()
    thread.join()
    assert answer.pieces == [b"[1, 2]"] * 2  # use_slave() after an own write too
    assert len(answer.cookies) == 1
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


def test_m1_a_write_in_a_thread_with_the_context_of_the_request_is_marked(
    board: Board, browser_of: type[Browser]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            thread = threading.Thread(target=contextvars.copy_context().run, args=(board.write, 2))
            thread.start()
            thread.join()
        start_response("200 OK", TEXT)
        return [repr(board.numbers()).encode()]

    board.pair.stop_slave()
    browser = browser_of(board.behind(application))
    assert browser.send("POST").body == b"[1, 2]"
    assert browser.send().body == b"[1, 2]"
    assert board.on("slave") == [1], "the slave did not lag, so nothing was tested"


# Links


def failing(board: Board) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        with board.db.cursor() as cursor, use_slave():
            cursor.execute("SELECT n FROM wsgi_message")
            with use_master():
                board.numbers()
            if environ["QUERY_STRING"]:
                yield b"one"
            raise LookupError

    return application


@servers
def test_requests_that_fail_or_are_abandoned_return_their_links(board: Board, exchange: SendRequest) -> None:
    pair = board.pair
    assert isinstance(pair, SessionPair)
    served = board.behind(failing(board))

    def request(number: int) -> None:
        answer = exchange(served, "GET", "piece" if number % 3 else "")
        if number % 3 == 1:
            answer.step()
            answer.close()
        else:
            with pytest.raises(LookupError):
                answer.finish()

    def connected() -> list[int]:
        return [pair.status(server, "Threads_connected") for server in ("master", "slave")]

    for number in range(3):
        request(number)
    before = connected()
    for number in range(30):
        request(number)
    eventually(lambda: all(after <= held for after, held in zip(connected(), before, strict=True)))


@servers
def test_many_requests_in_many_threads_share_a_few_links(board: Board, send: SendRequest) -> None:
    pair = board.pair
    assert isinstance(pair, SessionPair)
    before = pair.status("slave", "Connections")

    def visit() -> None:
        for _ in range(10):
            send(board.application)

    for _ in range(10):  # one after the other: the link of a thread that has ended serves the next
        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
    assert pair.status("slave", "Connections") - before <= 2


def test_the_debug_header_of_a_request_with_many_decisions_is_short(board: Board, send: SendRequest) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for _ in range(200):
            with use_master():
                board.numbers()
            board.numbers()
        start_response("200 OK", TEXT)
        return []

    answer = send(board.behind(application))
    # nginx, for one, gives the headers of a response 4 or 8 KB and makes a 502 of longer ones.
    assert sum(len(name) + len(value) for name, value in answer.headers) < 4000
    assert stack() is None
