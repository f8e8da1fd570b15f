"""The middleware follows PEP 3333 on both sides: `wsgiref.validate` is outside and inside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from wsgiref.validate import validator

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import SendRequest, Wrap

    Send = Callable[..., tuple[str, bytes, list[str]]]

TEXT = [("Content-Type", "text/plain")]
METHODS = ["GET", "POST"]


@pytest.fixture(params=["validators inside and outside", "a validator outside"])
def validated(request: pytest.FixtureRequest, send: SendRequest, wrap: Wrap) -> Send:
    """Sends a request through validator, middleware, validator; returns status, body, Set-Cookie headers.

    And once more without the inner validator, which turns every body into an iterator, also a list.
    """
    both = request.param == "validators inside and outside"

    def go(application: WSGIApplication, method: str = "GET", **options: object) -> tuple[str, bytes, list[str]]:
        inner = validator(application) if both else application
        answer = send(validator(wrap(inner, **options)), method)
        assert answer.answers == 1
        assert answer.values("Replswitch")
        return answer.status or "", answer.body, answer.cookies

    return go


def in_a_list(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b"one", b"", b"two"]


def from_a_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    yield b"one"
    yield b""
    yield b"two"


def with_empty_pieces_first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    yield b""
    yield b""
    yield b"onetwo"


def from_an_object_with_close(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"one", b"two"])

        def close(self) -> None:
            pass

    start_response("200 OK", TEXT)
    return Body()


def by_write_and_an_empty_list(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"one")
    write(b"two")
    return []


def by_write_and_a_list(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)(b"one")
    return [b"two"]


def by_write_and_a_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"on")
    return (piece for piece in (b"", b"e", b"two"))


def by_write_within_a_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"one")
    yield b""
    write(b"two")


def after_exc_info(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("500 Oops", [("Content-Type", "text/html"), ("Set-Cookie", "wrong=1")])
    try:
        raise LookupError
    except LookupError:
        start_response("200 OK", TEXT, sys.exc_info())
    return [b"onetwo"]


def after_exc_info_in_a_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("500 Oops", [("Content-Type", "text/html"), ("Set-Cookie", "wrong=1")])
    yield b""
    try:
        raise LookupError
    except LookupError:
        start_response("200 OK", TEXT, sys.exc_info())
    yield b"onetwo"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "application",
    [
        in_a_list,
        from_a_generator,
        with_empty_pieces_first,
        from_an_object_with_close,
        by_write_and_an_empty_list,
        by_write_and_a_list,
        by_write_and_a_generator,
        by_write_within_a_generator,
        after_exc_info,
        after_exc_info_in_a_generator,
    ],
    ids=lambda application: application.__name__,
)
def test_a_body_arrives_complete_after_one_set_of_headers(
    validated: Send, application: WSGIApplication, method: str
) -> None:
    assert validated(application, method) == ("200 OK", b"onetwo", [])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize(
    "empty",
    [list, tuple, iter, lambda nothing: (piece for piece in nothing)],
    ids=["list", "tuple", "iterator", "generator"],
)
def test_a_response_without_a_body_has_its_headers(
    validated: Send, status: str, empty: Callable[[list[bytes]], Iterable[bytes]]
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return empty([])

    assert validated(application) == (status, b"", [])


@pytest.mark.parametrize("body", [[], [b""], (b"",)])
def test_a_response_to_head_has_its_headers(validated: Send, body: Iterable[bytes]) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["REQUEST_METHOD"] == "HEAD"
        start_response("200 OK", [*TEXT, ("Content-Length", "3")])
        return body

    assert validated(application, "HEAD") == ("200 OK", b"", [])


@pytest.mark.parametrize("as_a_generator", [False, True])
@pytest.mark.parametrize("status", ["301 x", "302 Found", "303 See Other", "307 x", "308 x"])
def test_a_valid_redirect_has_its_marker(validated: Send, status: str, as_a_generator: bool) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [*TEXT, ("Location", "/"), ("Set-Cookie", "other=1")])
        return iter([b"", b"on"]) if as_a_generator else [b"on"]

    answered, body, (other, marker) = validated(application, "POST")
    assert (answered, body, other) == (status, b"on", "other=1")
    assert marker.startswith("just_updated")


def test_exc_info_after_the_headers_is_raised_by_the_start_response_call_of_the_application(
    send: SendRequest, wrap: Wrap
) -> None:
    raised = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"one"
        try:
            raise LookupError("in the middle")
        except LookupError:
            try:
                start_response("500 Oops", TEXT, sys.exc_info())
            except LookupError:
                raised.append(True)
                raise

    with pytest.raises(LookupError, match="in the middle"):
        send(validator(wrap(validator(application))))
    assert raised == [True]


def test_the_environ_reaches_the_application_unchanged(send: SendRequest, wrap: Wrap) -> None:
    seen = {}

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.update(environ)
        start_response("200 OK", TEXT)
        return []

    send(wrap(application), "POST", "a=1", cookie="just_updated=x", HTTP_X="y", wsgi_own=seen)
    first, seen = dict(seen), {}
    send(application, "POST", "a=1", cookie="just_updated=x", HTTP_X="y", wsgi_own=seen)
    assert first.keys() == seen.keys()
    assert {key for key in first if first[key] != seen[key]} <= {"wsgi.input", "wsgi.errors", "wsgi_own"}
