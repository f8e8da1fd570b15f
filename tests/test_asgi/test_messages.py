"""The headers wait for the first piece of the body that is not empty (M7); other messages pass at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.test_asgi.conftest import PLAIN, App, Browser, Exchange, Receive, Send, Wrap, http_scope

from replswitch import ReplSwitchError

START = {"type": "http.response.start", "status": 200, "headers": [PLAIN]}


def sends(*messages: dict[str, Any]) -> App:
    """An application that sends these messages."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def piece(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def kinds(answer: Exchange) -> list[str]:
    return [each["type"].removeprefix("http.response.") for each in answer.messages]


def test_m7_the_headers_wait_for_the_first_piece_that_is_not_empty(wrap: Wrap) -> None:
    reached: list[bool] = []

    async def main() -> Exchange:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await send(START)
            for body in (b"", b"one", b""):
                reached.append(exchange.started.is_set())
                await send(piece(body, more=True))
            reached.append(exchange.started.is_set())
            await send(piece())

        exchange = Exchange(wrap(app), http_scope())
        return await exchange.run()

    answer = asyncio.run(main())
    assert reached == [False, False, True, True]
    assert answer.pieces == [b"one", b"", b""]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("empty", [0, 2])
def test_an_empty_body_has_its_headers(wrap: Wrap, method: str, empty: int) -> None:
    answer = Browser(wrap(sends(START, *[piece(more=True)] * empty, piece()))).send(method)
    assert (answer.code, answer.body, kinds(answer)) == (200, b"", ["start", "body"])
    assert answer.side == ("master" if method == "POST" else "slave")


def test_a_body_message_without_a_body_ends_the_response(wrap: Wrap) -> None:
    assert kinds(Browser(wrap(sends(START, {"type": "http.response.body"}))).send()) == ["start", "body"]


def test_m7_the_headers_of_an_event_stream_are_sent_at_once(wrap: Wrap) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await send({**START, "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")]})
            assert exchange.started.is_set()
            await send(piece(b"data: 1\n\n"))

        exchange = Exchange(wrap(app), http_scope())
        await exchange.run()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["early_hint", "push", "debug"])
def test_messages_before_the_headers_are_passed_on_at_once(wrap: Wrap, kind: str) -> None:
    hint = {"type": f"http.response.{kind}", "links": []}
    for messages in ((hint, START, piece(b"x")), (START, hint, piece(b"x"))):
        assert kinds(Browser(wrap(sends(*messages))).send()) == [kind, "start", "body"]


def test_a_file_that_the_server_sends_releases_the_headers(wrap: Wrap) -> None:
    answer = Browser(wrap(sends(START, {"type": "http.response.pathsend", "path": "/etc/hosts"}))).send("POST")
    assert kinds(answer) == ["start", "pathsend"]
    assert answer.side == "master"


def test_trailers_follow_the_body(wrap: Wrap) -> None:
    trailers = {"type": "http.response.trailers", "headers": []}
    assert kinds(Browser(wrap(sends(START, piece(b"x"), trailers))).send()) == ["start", "body", "trailers"]


def test_a_start_without_a_body_reaches_the_server(wrap: Wrap) -> None:
    async def main() -> Exchange:
        exchange = Exchange(wrap(sends(START)), http_scope())
        with pytest.raises(AssertionError, match="without a whole response"):  # the server's complaint, not ours
            await exchange.run()
        return exchange

    assert kinds(asyncio.run(main())) == ["start"]


def test_a_second_start_is_an_error(wrap: Wrap) -> None:
    with pytest.raises(ReplSwitchError, match="second time"):
        Browser(wrap(sends(START, START))).send()


def test_a_body_without_a_start_message_is_left_to_the_server(wrap: Wrap) -> None:
    with pytest.raises(AssertionError, match="before the headers"):
        Browser(wrap(sends(piece(b"x")))).send()


def test_messages_and_headers_that_the_application_keeps_are_not_changed(wrap: Wrap) -> None:
    headers = [PLAIN]
    start = {"type": "http.response.start", "status": 302, "headers": headers}
    for _ in range(2):
        answer = Browser(wrap(sends(start, piece()))).send("POST")
        assert len(answer.cookies) == 1
    assert headers == [PLAIN]
    assert start["headers"] is headers


def test_a_start_message_without_headers_gets_those_of_the_middleware(wrap: Wrap) -> None:
    assert Browser(wrap(sends({"type": "http.response.start", "status": 204}, piece()))).send().side == "slave"


def test_an_error_after_held_headers_leaves_the_response_to_the_server(wrap: Wrap) -> None:
    async def main() -> Exchange:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await send(START)
            raise LookupError("on the way")

        exchange = Exchange(wrap(app), http_scope())
        with pytest.raises(LookupError, match="on the way"):
            await exchange.run()
        return exchange

    assert asyncio.run(main()).messages == []
