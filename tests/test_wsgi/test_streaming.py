"""The state holds in each piece of a body and in its ``close()``, and never while the server works (S9).

`Exchange` in conftest.py looks after every step whether the thread's stack is as it was before the request.
"""

from __future__ import annotations

import gc
import io
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import pytest

from replswitch import ReplSwitchError, RevertError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Exchange, SendRequest, Wrap

TEXT = [("Content-Type", "text/plain")]
STATES = [("GET", "slave"), ("POST", "master")]


class Body:
    """A body that notes the state in which each of its methods was called, and the thread."""

    def __init__(self, switch: Switch, pieces: Iterable[bytes]) -> None:
        self.switch = switch
        self.pieces = iter(pieces)
        self.noted: list[tuple[str, str]] = []

    def note(self, what: str) -> None:
        self.noted.append((what, self.switch.state))

    def __iter__(self) -> Iterator[bytes]:
        self.note("iter")
        return self

    def __next__(self) -> bytes:
        self.note("next")
        return next(self.pieces)

    def close(self) -> None:
        self.note("close")

    def application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.note("call")
        start_response("200 OK", TEXT)
        return self


@pytest.mark.parametrize(("method", "state"), STATES)
def test_s9_every_piece_and_close_run_in_the_state_of_the_request_and_the_server_s_code_does_not(
    exchange: SendRequest, wrap: Wrap, method: str, state: str
) -> None:
    switch = Switch()
    body = Body(switch, [b"", b"one", b"", b"two"])
    answer = exchange(wrap(body.application), method)
    while answer.step() is not None:
        assert switch.state == "master"
        assert stack() is None
    answer.close()
    assert [what for what, _ in body.noted] == ["call", "iter", *["next"] * 5, "close"]
    assert {noted for _, noted in body.noted} == {state}
    assert answer.body == b"onetwo"


def test_s9_between_the_pieces_the_state_of_the_server_is_restored(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()
    body = Body(switch, [b"one", b"two"])
    with switch.use_slave(), use_slave():
        answer = exchange(wrap(body.application), "POST")
        while answer.step() is not None:
            assert switch.state == "slave"
        answer.close()
        assert switch.state == "slave"
    assert {noted for _, noted in body.noted} == {"master"}


def test_m7_empty_first_chunks_are_held_back_with_the_headers(exchange: SendRequest, wrap: Wrap) -> None:
    body = Body(Switch(), [b"", b"", b"one", b"", b"two"])
    answer = exchange(wrap(body.application))
    assert answer.status is None
    assert [answer.step(), answer.step(), answer.step(), answer.step()] == [b"one", b"", b"two", None]
    answer.close()


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_a_response_with_an_empty_body_sends_its_headers(send: SendRequest, wrap: Wrap, pieces: list[bytes]) -> None:
    answer = send(wrap(Body(Switch(), pieces).application), "POST")
    assert (answer.status, answer.body, answer.answers) == ("200 OK", b"", 1)
    assert answer.side == "master"


@pytest.mark.parametrize(("method", "state"), STATES)
def test_s9_the_write_callable_is_used_in_the_state_of_the_request(
    send: SendRequest, wrap: Wrap, method: str, state: str
) -> None:
    switch = Switch()
    states = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        write = start_response("200 OK", TEXT)
        for piece in (b"one", b"two"):
            write(piece)
            states.append(switch.state)
        yield b"three"
        write(b"four")
        states.append(switch.state)

    answer = send(wrap(application), method)
    assert answer.pieces == [b"one", b"two", b"three", b"four"]
    assert states == [state] * 3
    assert answer.answers == 1


@pytest.mark.parametrize("rest", [[], [b"two"], (), (b"two",)])
def test_a_list_after_the_write_callable_was_used_does_not_send_the_headers_again(
    send: SendRequest, wrap: Wrap, rest: Iterable[bytes]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("302 Found", TEXT)(b"one")
        return rest

    answer = send(wrap(application), "POST")
    assert answer.body == b"".join([b"one", *rest])
    assert len(answer.cookies) == 1


def test_a_file_after_the_write_callable_was_used_does_not_send_the_headers_again(
    send: SendRequest, wrap: Wrap
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)(b"one")
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"two"))
        return wrapped

    answer = send(wrap(application), **{"wsgi.file_wrapper": FileWrapper})
    assert answer.body == b"onetwo"


def test_exc_info_before_the_headers_replaces_them(send: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [*TEXT, ("X-First", "1")])
        yield b""
        try:
            raise LookupError
        except LookupError:
            start_response("302 Found", [*TEXT, ("Location", "/")], sys.exc_info())
        yield b"sorry"

    answer = send(wrap(application), "POST")
    assert (answer.status, answer.body, answer.answers) == ("302 Found", b"sorry", 1)
    assert not answer.values("X-First")
    assert answer.replaced_by is LookupError
    assert len(answer.cookies) == 1  # the marker goes by the status that is sent


def test_a_start_response_that_returns_none_is_called_once(wrap: Wrap) -> None:
    # No such server keeps to PEP 3333, but many a test's does so.
    heard = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        heard.append(status)

    body = Body(Switch(), [b"one", b"", b"two"])
    pieces = wrap(body.application)({"REQUEST_METHOD": "GET"}, start)
    assert b"".join(pieces) == b"onetwo"
    assert heard == ["200 OK"]


def test_exc_info_after_the_headers_is_raised_by_the_server(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()
    states = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"one"
        try:
            raise LookupError("too late")
        except LookupError:
            try:
                start_response("500 Oops", TEXT, sys.exc_info())
            finally:
                states.append(switch.state)

    answer = exchange(wrap(application))
    answer.step()
    with pytest.raises(LookupError, match="too late"):
        answer.step()
    answer.close()
    assert (states, answer.status, answer.answers) == (["slave"], "200 OK", 1)


def test_a_second_call_of_start_response_without_exc_info_is_refused(send: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        start_response("200 OK", TEXT)
        return []

    with pytest.raises(ReplSwitchError, match=r"start_response\(\) a second time"):
        send(wrap(application))


@pytest.mark.parametrize("started", [False, True], ids=["before start_response", "after start_response"])
def test_s3_an_application_that_raises_leaves_no_state(exchange: SendRequest, wrap: Wrap, started: bool) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if started:
            start_response("200 OK", TEXT)
        switch.use_master()
        use_slave().__enter__()
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once"):
        exchange(wrap(application))
    assert stack() is None
    assert switch.state == "master"
    with pytest.raises(RevertError):
        switch.revert()


@pytest.mark.parametrize("pieces", [[], [b""], [b"one"], [b"one", b"two"]])
def test_s3_an_application_that_raises_while_streaming_leaves_no_state(
    exchange: SendRequest, wrap: Wrap, pieces: list[bytes]
) -> None:
    switch = Switch()
    ended = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        try:
            switch.use_master()
            yield from pieces
            raise LookupError("on the way")
        finally:
            ended.append(switch.state)

    answer = exchange(wrap(application))
    with pytest.raises(LookupError, match="on the way"):
        answer.finish()
    assert stack() is None
    assert ended == ["master"]
    assert answer.answers == (1 if any(pieces) else 0)  # an error page may still be made by those outside


def test_an_error_page_of_outer_middleware_can_replace_the_response(send: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        raise LookupError

    def outside(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return list(wrap(application)(environ, start_response))
        except LookupError:
            start_response("500 Oops", TEXT, sys.exc_info())
            return [b"sorry"]

    answer = send(outside)
    assert (answer.status, answer.body, answer.answers) == ("500 Oops", b"sorry", 1)


@pytest.mark.parametrize("taken", [0, 1, 2], ids=["before any piece", "after one piece", "after two pieces"])
def test_s9_a_disconnect_closes_the_body_in_the_state_of_the_request(
    exchange: SendRequest, wrap: Wrap, taken: int
) -> None:
    switch = Switch()
    body = Body(switch, [b"one", b"two", b"three"])
    answer = exchange(wrap(body.application))
    for _ in range(taken):
        answer.step()
    answer.close()
    assert body.noted[-1] == ("close", "slave")
    assert switch.state == "master"
    assert answer.answers == (1 if taken else 0)


def test_s9_a_generator_closed_early_runs_its_finally_in_the_state_of_the_request(
    exchange: SendRequest, wrap: Wrap
) -> None:
    switch = Switch()
    cleaned = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        try:
            with switch.use_master():
                yield b"one"
                yield b"two"
        finally:
            cleaned.append(switch.state)

    answer = exchange(wrap(application))
    answer.step()
    answer.close()
    assert cleaned == ["slave"]


def test_s3_a_close_that_raises_leaves_no_state(exchange: SendRequest, wrap: Wrap) -> None:
    class Failing(Body):
        def close(self) -> None:
            self.switch.use_master()
            raise LookupError("at the end")

    answer = exchange(wrap(Failing(Switch(), [b"one"]).application))
    with pytest.raises(LookupError, match="at the end"):
        answer.finish()
    assert stack() is None


def test_s9_a_body_iterated_in_another_thread_has_the_state(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()
    body = Body(switch, [b"one", b"two", b"three"])
    answer = exchange(wrap(body.application))
    answer.step()
    others: list[object] = []

    def elsewhere() -> None:
        for act in (answer.step, answer.step, answer.step, answer.close):
            act()
            others.append(stack())

    here = stack()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert {noted for _, noted in body.noted} == {"slave"}
    assert body.noted[-1] == ("close", "slave")
    assert answer.body == b"onetwothree"
    assert others == [None] * 4
    assert stack() is here is None


def test_s9_chunks_produced_by_different_threads_have_the_state(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()
    seen = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        with switch.use_master():
            for _ in range(3):
                seen.append((threading.get_ident(), switch.state))
                yield b"x"
        seen.append((threading.get_ident(), switch.state))

    answer = exchange(wrap(application))
    alive = threading.Event()
    threads = []
    for act in (answer.step, answer.step, answer.step, answer.step, answer.close):
        done = threading.Event()

        def work(act: Callable[[], object] = act, done: threading.Event = done) -> None:
            act()
            done.set()
            alive.wait(10)  # or the next thread may get the same identity

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        assert done.wait(10)
    alive.set()
    for thread in threads:
        thread.join()
    assert [state for _, state in seen] == ["master", "master", "master", "slave"]
    assert len({thread for thread, _ in seen}) == 4


def test_s9_interleaved_responses_in_one_thread_keep_their_own_states(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield switch.state.encode()
        if environ["QUERY_STRING"]:
            switch.use_slave() if environ["QUERY_STRING"] == "slave" else switch.use_master()
        yield switch.state.encode()
        yield switch.state.encode()

    served = wrap(application)
    answers = [exchange(served, *request) for request in (("GET",), ("POST",), ("GET", "master"), ("POST", "slave"))]
    for _ in range(4):
        for answer in answers:
            answer.step()
    for answer in answers:
        answer.close()
    assert [b" ".join(answer.pieces) for answer in answers] == [
        b"slave slave slave",
        b"master master master",
        b"slave master master",
        b"master slave slave",
    ]


def unbalanced(switch: Switch) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        before = switch.state
        switch.use_master()
        switch.use_slave()
        use_master().__enter__()
        start_response("200 OK", TEXT)
        return [before.encode()]

    return application


def test_s3_an_unbalanced_request_does_not_change_the_state_of_the_next(send: SendRequest, wrap: Wrap) -> None:
    switch = Switch()
    served = wrap(unbalanced(switch))
    for method, state in STATES * 2:
        assert send(served, method).body == state.encode()
        assert switch.state == "master"


def test_s2_revert_does_not_undo_the_middleware(send: SendRequest, wrap: Wrap) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        switch.use_master()
        switch.revert()
        with pytest.raises(RevertError):
            switch.revert()
        return [switch.state.encode()]

    with switch.use_slave():
        assert send(wrap(application), "GET").body == b"slave"
        assert send(wrap(application), "POST").body == b"master"
        assert switch.state == "slave"


def test_s9_a_block_that_spans_chunks_holds_in_each_of_them_until_it_is_left(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield switch.state.encode()
        with switch.use_slave():
            yield switch.state.encode()
            with use_master():
                yield switch.state.encode()
            yield switch.state.encode()
        yield switch.state.encode()

    answer = exchange(wrap(application), "POST").finish()
    assert b" ".join(answer.pieces) == b"master slave master slave master"


def test_a_body_that_is_not_closed_leaves_no_state(exchange: SendRequest, wrap: Wrap) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        with switch.use_slave():
            yield b"one"
            yield b"two"

    answer: Exchange | None = exchange(wrap(application), "GET")
    assert answer is not None
    answer.step()
    answer = None
    gc.collect()
    assert stack() is None, "the state of a request that is over came to life in the server's code"
    assert switch.state == "master"


@pytest.mark.parametrize(("method", "state"), STATES)
def test_two_nested_middlewares_set_one_state(send: SendRequest, wrap: Wrap, method: str, state: str) -> None:
    switch = Switch()
    body = Body(switch, [b"", b"one", b"two"])
    answer = send(wrap(wrap(body.application)), method)
    assert {noted for _, noted in body.noted} == {state}
    assert (answer.body, answer.answers) == (b"onetwo", 1)
    assert answer.values("Replswitch") == [f"{state}; reason=method"] * 2


def test_two_nested_middlewares_read_the_marker_once(send: SendRequest, wrap: Wrap, token: Callable[..., str]) -> None:
    body = Body(Switch(), [b"one"])
    answer = send(wrap(wrap(body.application)), cookie=f"just_updated={token()}")
    assert {noted for _, noted in body.noted} == {"master"}
    assert answer.values("Replswitch") == ["master; reason=marker"] * 2


def test_s3_a_request_inside_a_request_has_its_own_state(send: SendRequest, wrap: Wrap) -> None:
    switch = Switch()

    def inner(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [switch.state.encode()]

    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [switch.state.encode(), b" ", send(wrap(inner), "GET").body, b" ", switch.state.encode()]

    assert send(wrap(outer), "POST").body == b"master slave master"


def test_an_application_that_never_calls_start_response_is_left_to_the_server(
    exchange: SendRequest, wrap: Wrap
) -> None:
    for body in ([], [b"one"], iter([]), iter([b"one"]), iter([b"", b"one"])):
        answer = exchange(wrap(lambda environ, start_response, body=body: body))
        with pytest.raises(AssertionError, match=r"never called start_response|came before the headers"):
            answer.finish()
        assert (answer.answers, answer.body) == (0, b"")


def test_a_body_with_length_zero_is_iterated(send: SendRequest, wrap: Wrap) -> None:
    class Lazy(Body):
        def __len__(self) -> int:
            return 0  # nothing is there before it is asked for

    assert send(wrap(Lazy(Switch(), [b"one", b"two"]).application)).body == b"onetwo"


def test_an_application_that_returns_nothing_is_an_error(exchange: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        start_response("200 OK", TEXT)

    with pytest.raises(TypeError):
        exchange(wrap(application)).finish()
    assert stack() is None


@pytest.mark.parametrize("body", [[], [b"one", b"two"], (b"one",)])
def test_a_body_that_is_a_list_or_tuple_is_returned_unchanged(
    exchange: SendRequest, wrap: Wrap, body: Iterable[bytes]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return body

    answer = exchange(wrap(application))
    assert answer.result is body
    assert answer.finish().body == b"".join(body)


def test_a_file_of_wsgi_file_wrapper_is_returned_unchanged(exchange: SendRequest, wrap: Wrap) -> None:
    file = io.BytesIO(b"content")
    made: list[Any] = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        made.append(environ["wsgi.file_wrapper"](file))
        body: Iterable[bytes] = made[0]
        return body

    answer = exchange(wrap(application), **{"wsgi.file_wrapper": FileWrapper})
    assert answer.result is made[0]
    assert answer.finish().body == b"content"
    assert file.closed


def test_a_file_is_closed_when_the_server_refuses_the_headers(wrap: Wrap) -> None:
    file = io.BytesIO(b"content")

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return body

    def refuse(*_: object) -> Any:
        raise ValueError("these headers are no good")

    with pytest.raises(ValueError, match="no good"):
        wrap(application)({"REQUEST_METHOD": "GET", "wsgi.file_wrapper": FileWrapper}, refuse)
    # Only the middleware has the body: by PEP 3333, close() must be called in any case.
    assert file.closed


def test_a_file_wrapper_that_is_a_function_works(exchange: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"content"))
        return body

    answer = exchange(wrap(application), **{"wsgi.file_wrapper": lambda file: iter([file.read()])})
    assert answer.finish().body == b"content"


@pytest.mark.parametrize("change", ["method", "clear"], ids=["method changed", "all cleared"])
@pytest.mark.parametrize("as_a_generator", [False, True])
def test_an_application_may_change_the_environ(
    send: SendRequest, wrap: Wrap, change: str, as_a_generator: bool
) -> None:
    # PEP 3333: "the application is allowed to modify the dictionary in any way it desires".
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if change == "clear":
            environ.clear()
        else:
            environ["REQUEST_METHOD"] = "GET"  # as those do that serve an error page by a request of their own
        start_response("302 Found", [*TEXT, ("Location", "/")])
        return iter([b"one"]) if as_a_generator else [b"one"]

    answer = send(wrap(application), "POST")
    assert (answer.code, answer.body) == (302, b"one")
    assert len(answer.cookies) == 1


def test_headers_that_the_application_keeps_are_not_changed(send: SendRequest, wrap: Wrap) -> None:
    kept = [*TEXT, ("Location", "/")]

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("302 Found", kept)
        return [b"one"]

    for _ in range(2):
        assert len(send(wrap(application), "POST").cookies) == 1
    assert kept == [*TEXT, ("Location", "/")]


def test_s2_a_block_that_the_application_opens_around_its_body_ends_when_the_body_is_closed(
    exchange: SendRequest, wrap: Wrap
) -> None:
    switch = Switch()

    @contextmanager
    def unit_of_work() -> Iterator[None]:
        with switch.use_master():
            yield

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        with unit_of_work():
            yield switch.state.encode()
        yield switch.state.encode()

    answer = exchange(wrap(application))
    other = exchange(wrap(application), "GET")
    for step in (answer.step, other.step, answer.step, other.step, other.close, answer.close):
        step()
    assert answer.pieces == other.pieces == [b"master", b"slave"]
