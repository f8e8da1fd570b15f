"""The option ``rollout``: a share of the visitors reads from slaves, and the others from the master, read-only (R6).

And ``enabled`` as a function.
"""

from __future__ import annotations

import contextvars
import io
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_wsgi.conftest import SECRET, Board, Browser, environ

import replswitch
from replswitch import ConfigurationError, NoServerError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.request.options import RequestOptions
from replswitch.request.policy import RequestPolicy
from replswitch.state import stack
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import SendRequest, Wrap

OK = ("200 OK", [("Content-Type", "text/plain")])

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
ON_TWO_SERVERS = pytest.mark.parametrize("served", ["mariadb", "sqlite"], indirect=True)


def reads_of(board: Board, **options: Any) -> WSGIApplication:
    return board.behind(board.serve, **options)


def page(work: Callable[[], object]) -> WSGIApplication:
    """An application that does some work in each request, and shows its result."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return [str(work()).encode()]

    return application


def left_out(board: Board) -> str:
    """The debug header of a read for a visitor that the rollout leaves out."""
    return f"slave; server={board.db.servers.master.name}; reason=rollout"


def is_in(answer: Any) -> bool:
    """Whether a slave has served the read of a response."""
    assert answer.told.endswith(("; reason=rollout", "; reason=method")), answer.told
    return bool(answer.told.endswith("; reason=method"))


@ON_ONE_SERVER
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_r6_the_rollout_share_of_1000_visitors_reads_from_slaves_and_no_visitor_changes_sides(
    board: Board, share: float
) -> None:
    application = reads_of(board, rollout=share)
    served = {f"slave; server={board.db.servers.slaves[0].name}; reason=method", left_out(board)}
    number = 0
    for _ in range(1000):
        visitor = Browser(application)
        first, second = visitor.send(), visitor.send()
        assert first.told == second.told, "a visitor has changed sides"
        assert first.told in served
        assert (len(first.cookies), len(second.cookies)) == (int(0 < share < 1), 0)
        number += is_in(first)
    assert abs(number / 1000 - share) <= (0.03 if 0 < share < 1 else 0)


def test_r6_a_visitor_outside_the_rollout_reads_the_master_over_a_read_only_connection(
    board: Board, browser_of: type[Browser]
) -> None:
    board.db.debug = True
    board.pair.stop_slave()
    board.write(2)
    visitor = browser_of(reads_of(board, rollout=0))
    answer = visitor.send()
    assert (answer.body, answer.told, answer.cookies) == (b"1 2", left_out(board), [])
    query = board.db.queries[-1]
    assert (query["db"], query["reason"]) == ("slave", "rollout")
    assert visitor.post("n=3").body == b"1 2 3"
    assert visitor.send().told == left_out(board), "the master over a read-only connection has every write"
    other = browser_of(reads_of(board, rollout=1)).send()
    assert other.body == b"1", "the slave did not lag, so nothing was tested"


def test_r6_with_rollout_0_a_write_in_slave_state_is_reported_although_no_slave_is_read(
    board: Board, send: SendRequest, caplog: pytest.LogCaptureFixture
) -> None:
    name = board.db.servers.master.name
    moved_before = replswitch.stats()["moved-write"].get((board.db.database.name, name), 0)

    def work() -> list[list[int]]:
        first = board.numbers()
        board.write(2)
        return [first, board.numbers()]

    answer = send(board.behind(page(work), rollout=0))
    assert answer.body == b"[[1], [1, 2]]"
    assert answer.told == f"{left_out(board)}, master; server={name}; reason=moved-write"
    assert replswitch.stats()["moved-write"][board.db.database.name, name] == moved_before + 1
    assert len(answer.cookies) == 1, "the write makes a marker"
    assert "conftest.py" in caplog.text, "the warning does not name the place"


@ON_TWO_SERVERS
def test_r6_a_request_that_runs_again_keeps_its_side(board: Board, browser_of: type[Browser]) -> None:
    def work() -> list[int]:
        board.db.begin()
        count = len(board.numbers())
        board.write(count + 1)
        board.db.commit()
        return board.numbers()

    application = board.behind(page(work), rollout=0.5)
    seen = set()
    for number in range(2, 6):
        visitor = browser_of(application)
        first = visitor.send()
        assert first.body.decode() == str([*range(1, number + 1)])
        assert "reason=replay" in first.told or "reason=learned" in first.told
        assert len([each for each in first.cookies if "_rollout=" in each]) == 1
        visitor.application = reads_of(board, rollout=0.5)
        visitor.jar = {name: value for name, value in visitor.jar.items() if name.endswith("rollout")}
        answers = [visitor.send() for _ in range(2)]
        assert is_in(answers[0]) == is_in(answers[1]), "a visitor has changed sides"
        seen.add(is_in(answers[0]))
    assert seen == {True, False}


@ON_ONE_SERVER
def test_r6_a_larger_rollout_share_adds_visitors_and_removes_none(board: Board, browser_of: type[Browser]) -> None:
    applications = [reads_of(board, rollout=share) for share in (0.1, 0.3, 0.7, 1)]
    for _ in range(100):
        visitor, sides = browser_of(applications[0]), []
        for application in applications:
            visitor.application = application
            sides.append(is_in(visitor.send()))
        assert sides == sorted(sides), "a visitor has left the slaves while the share grew"


@ON_ONE_SERVER
def test_r2_r6_a_client_cannot_choose_the_side(board: Board, send: SendRequest) -> None:
    # Few visitors read from slaves, so if a forged ticket were accepted, the test would fail.
    application = reads_of(board, rollout=0.01)
    real = RequestPolicy(RequestOptions(), SECRET).rollout
    foreign = RequestPolicy(RequestOptions(), "another").rollout
    assert is_in(send(application, cookie=f"just_updated_rollout={real.ticket(0)}"))
    other_number = "1" + real.ticket(0)[1:]
    for forged in ("0", "", "0.", f"0.{'A' * 43}", foreign.ticket(0), other_number, f"0{real.ticket(0)}"):
        answers = [send(application, cookie=f"just_updated_rollout={forged}") for _ in range(20)]
        assert sum(map(is_in, answers)) <= 1, f"a forged ticket was accepted: {forged}"
        assert all(len(answer.cookies) == 1 for answer in answers), "the visitor gets a ticket of their own"


@ON_ONE_SERVER
def test_r6_forged_rollout_tickets_do_not_hide_the_real_ticket_in_any_order(board: Board, send: SendRequest) -> None:
    application = reads_of(board, rollout=0.5)
    policy = application.policy  # type: ignore[attr-defined]  # the middleware has it
    low, high = policy.rollout.ticket(1), policy.rollout.ticket(9999)
    forged = [f"{number}.{'x' * 43}" for number in range(600)]
    for tickets in ([*forged, high], [high, *forged], [low, high], [high, low]):
        answer = send(application, cookie="; ".join(f"just_updated_rollout={each}" for each in tickets))
        assert is_in(answer) == (low in tickets)
        assert answer.cookies == []


@ON_ONE_SERVER
def test_m6_the_cookie_of_the_rollout_ticket_has_the_attributes_of_the_marker_cookie(
    board: Board, send: SendRequest
) -> None:
    options = {"rollout": 0.5, "cookie_name": "shop", "cookie_path": "/shop", "cookie_domain": "example.com"}
    (cookie,) = send(reads_of(board, **options), **{"wsgi.url_scheme": "https"}).cookies
    name, *attributes = cookie.split("; ")
    assert name.startswith("shop_rollout=")
    assert {each.lower() for each in attributes} == {
        "httponly", "secure", "samesite=lax", "path=/shop", "domain=example.com", "max-age=34560000",
    }  # fmt: skip


@ON_ONE_SERVER
def test_m2_a_rollout_ticket_signed_with_an_old_secret_is_valid_and_is_signed_again(
    board: Board, browser_of: type[Browser]
) -> None:
    for _ in range(10):
        visitor = browser_of(reads_of(board, rollout=0.5))
        side = is_in(visitor.send())
        visitor.application = ReplicationMiddleware(board.serve, ["new", SECRET], rollout=0.5, debug_header=True)
        assert is_in(visitor.send()) == side
        visitor.application = ReplicationMiddleware(board.serve, "new", rollout=0.5, debug_header=True)
        answer = visitor.send()
        assert (is_in(answer), answer.cookies) == (side, [])


@ON_TWO_SERVERS
def test_r6_a_client_without_cookies_keeps_its_side_with_the_header(board: Board, send: SendRequest) -> None:
    application = reads_of(board, rollout=0.5, header=True)
    board.pair.stop_slave()
    seen = set()
    for number in range(2, 8):
        kept: dict[str, str] = {}
        sides, rows = [], []
        for method, query in (("GET", ""), ("GET", ""), ("POST", f"n={number}"), ("GET", ""), ("GET", "")):
            answer = send(application, method, query, **kept)
            if found := answer.values("Replswitch-Marker"):
                kept = {"HTTP_REPLSWITCH_MARKER": found[0]}
            if method == "GET":
                rows.append(answer.body)
                sides.append("reason=rollout" in answer.told)
        assert str(number).encode() in rows[-1].split(), "the marker was lost"
        assert rows[-1] == rows[-2]
        assert len(set(sides)) == 1, "a client has changed sides"
        seen.add(sides[0])
    assert seen == {True, False}


@ON_ONE_SERVER
def test_r6_a_new_rollout_ticket_does_not_replace_the_marker_in_the_header(board: Board, send: SendRequest) -> None:
    board.pair.stop_slave()
    (marker,) = send(reads_of(board, header=True), "POST", "n=2").values("Replswitch-Marker")
    application = reads_of(board, header=True, rollout=0.9)
    for _ in range(3):
        answer = send(application, HTTP_REPLSWITCH_MARKER=marker)
        assert answer.body == b"1 2"
        marker = (answer.values("Replswitch-Marker") or [marker])[0]


# Functions of the request


@ON_ONE_SERVER
def test_r6_a_rollout_function_decides_which_visitors_read_from_slaves(board: Board, send: SendRequest) -> None:
    def rollout(request: Any) -> float:
        return {"in": True, "out": False, "all": 1, "none": 0, "half": 0.5}[request.params["to"]]

    application = reads_of(board, rollout=rollout)
    for to, expected in (("in", True), ("all", True), ("out", False), ("none", False)):
        answer = send(application, "GET", f"to={to}")
        assert (is_in(answer), answer.cookies) == (expected, [])
    assert len(send(application, "GET", "to=half").cookies) == 1
    with_no_argument = reads_of(board, rollout=lambda: False)
    assert send(with_no_argument).told == left_out(board)


@pytest.mark.parametrize("nonsense", [None, "0.1", -0.1, 1.1, 2, float("nan"), [], b"1", object()])
def test_a_rollout_function_that_returns_no_share_is_an_error(send: SendRequest, wrap: Wrap, nonsense: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        send(wrap(page(str), rollout=lambda request: nonsense))
    assert str(raised.value) == (
        f'The function in the option "rollout" returned {nonsense!r}. It must return a number from 0 to 1, or True or '
        "False for this visitor."
    )


@pytest.mark.parametrize("name", ["enabled", "rollout"])
def test_an_error_of_the_function_in_an_option_is_raised_and_leaves_no_state(
    send: SendRequest, wrap: Wrap, name: str
) -> None:
    def function(request: Any) -> None:
        raise LookupError("mine")

    options: dict[str, Any] = {name: function}
    with pytest.raises(LookupError, match="mine"):
        send(wrap(page(str), **options))
    assert stack() is None


@pytest.mark.parametrize("nonsense", [None, "yes", 0, 1, [], object()])
def test_an_enabled_function_that_returns_no_bool_is_an_error(send: SendRequest, wrap: Wrap, nonsense: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        send(wrap(page(str), enabled=lambda request: nonsense))
    expected = f'The function in the option "enabled" returned {nonsense!r}. It must return True or False.'
    assert str(raised.value) == expected


def test_the_functions_in_the_options_get_the_request_and_leave_its_body_unread(send: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        return [environ["wsgi.input"].read()]

    wrapped = wrap(application, rollout=lambda request: request.POST["share"] == "1", enabled=lambda: True)
    form = {"CONTENT_TYPE": "application/x-www-form-urlencoded", "CONTENT_LENGTH": "7"}
    assert send(wrapped, "POST", **form, **{"wsgi.input": io.BytesIO(b"share=1")}).body == b"share=1"


def test_with_enabled_false_no_other_function_is_called(send: SendRequest, wrap: Wrap) -> None:
    asked: list[object] = []
    for enabled in (False, lambda request: False):
        application = wrap(page(lambda: Switch().state), enabled=enabled, override=asked.append, rollout=asked.append)
        answer = send(application)
        assert (answer.body, answer.told, answer.cookies) == (b"master", "master; reason=disabled", [])
    assert asked == []


@ON_TWO_SERVERS
def test_visitors_see_their_own_writes_when_enabled_changes_while_the_application_runs(
    board: Board, browser_of: type[Browser]
) -> None:
    enabled = [True]
    visitor = browser_of(reads_of(board, enabled=lambda: enabled[0]))
    assert visitor.send().side == "slave"
    board.pair.stop_slave()
    enabled[0] = False
    answer = visitor.send()
    assert answer.told == f"master; server={board.db.servers.master.name}; reason=disabled"
    assert visitor.post("n=2").body == b"1 2"
    enabled[0] = True
    assert visitor.send().body == b"1 2", "a write that was made while enabled was False is missed"
    assert browser_of(visitor.application).send().body == b"1"


# What belongs to the request


@ON_TWO_SERVERS
@pytest.mark.parametrize("share", [0, 1])
def test_r6_streams_threads_and_jobs_are_on_the_side_of_their_request(
    board: Board, share: float, send: SendRequest
) -> None:
    board.db.debug = True
    found: dict[str, str] = {}

    def read(name: str) -> None:
        with use_slave():
            board.numbers()
            found[name] = board.db.queries[-1]["server"]

    def in_thread(work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def job(token: str, name: str) -> None:
        with replswitch.resume(token):
            read(name)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*OK)
        read("request")
        yield b"piece"
        read("stream")
        context = contextvars.copy_context()
        in_thread(lambda: context.run(read, "thread"))
        token = replswitch.carry()
        job(token, "eager job")
        job("", "eager job without a token")
        in_thread(lambda: job(token, "job"))
        yield from inner(environ, start_response_of_inner)

    def start_response_of_inner(*_: object) -> Any:
        """Ignore the headers of the inner response."""

    inner = board.behind(page(lambda: read("inner application")))
    send(board.behind(application, rollout=share))
    server = board.db.servers.slaves[0] if share else board.db.servers.master
    assert found == dict.fromkeys(
        ["request", "stream", "thread", "eager job", "eager job without a token", "job", "inner application"],
        server.name,
    )
    assert replswitch.carry() == ""


@ON_ONE_SERVER
def test_r6_the_token_of_a_job_has_the_writes_and_the_side_of_its_visitor(board: Board, send: SendRequest) -> None:
    tokens: list[str] = []

    def work() -> None:
        board.write(2)
        tokens.append(replswitch.carry())

    board.db.debug = True
    board.pair.stop_slave()
    for share in (0, 1):
        with use_master():
            board.db.cursor().execute("DELETE FROM wsgi_message WHERE n = 2")
        send(board.behind(page(work), rollout=share), "POST")
        with replswitch.resume(tokens.pop()), use_slave():
            assert board.numbers() == [1, 2]
        assert board.db.queries[-1]["reason"] == ("marker" if share else "rollout")


@ON_TWO_SERVERS
def test_r6_in_a_transaction_the_master_is_read_over_one_read_only_connection(board: Board, send: SendRequest) -> None:
    def work() -> list[Any]:
        board.db.begin()
        found = [board.numbers()]
        with board.db.use_slave():
            found.append(board.numbers())
        board.db.commit()
        with use_master():
            board.numbers()
        return [*found, board.numbers()]

    answer = send(board.behind(page(work), rollout=0))
    assert answer.body == b"[[1], [1], [1]]"
    name = board.db.servers.master.name
    assert answer.told == f"{left_out(board)}, master; server={name}; reason=use_master, {left_out(board)}"


@ON_ONE_SERVER
def test_f3_without_the_master_a_visitor_outside_the_rollout_reads_from_no_slave(
    board: Board, send: SendRequest
) -> None:
    missing = {"database": "/nowhere/at/all.db"}
    with replswitch.connect(master=missing, slaves=board.pair.slaves, driver="sqlite3") as db:

        def read() -> object:
            with db.cursor() as cursor:
                cursor.execute("SELECT n FROM wsgi_message")
                return cursor.fetchall()

        assert send(board.behind(page(read), rollout=1)).body == b"[(1,)]"
        with pytest.raises(NoServerError):
            send(board.behind(page(read), rollout=0))


def test_r6_without_slaves_the_rollout_changes_nothing(board: Board, send: SendRequest) -> None:
    with replswitch.connect(master=board.pair.master, driver=board.driver) as db:

        def read() -> object:
            with db.cursor() as cursor:
                cursor.execute("SELECT n FROM wsgi_message")
                return cursor.fetchone()[0]

        answer = send(board.behind(page(read), rollout=0))
        assert (answer.body, answer.told) == (b"1", f"slave; server={db.servers.master.name}; reason=method")


def test_r6_a_switch_without_a_database_is_in_master_state_for_a_visitor_outside_the_rollout(
    send: SendRequest, wrap: Wrap
) -> None:
    switch = Switch()
    assert send(wrap(page(lambda: switch.state), rollout=0)).body == b"master"
    assert send(wrap(page(lambda: switch.state), rollout=1)).body == b"slave"


def test_r6_without_the_option_rollout_a_request_gets_no_ticket_and_reads_from_slaves() -> None:
    policy = RequestPolicy(RequestOptions(), SECRET)
    frame = policy.begin("GET", environ().get("HTTP_COOKIE", ""))
    assert (frame.scope.held_back, frame.scope.ticket, policy.asks) == (None, None, False)
