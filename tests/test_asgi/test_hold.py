"""The option `hold`: a response in one piece waits for the application, so that a late commit is marked (M7)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.test_asgi.conftest import App, ASGIBoard, Browser, Exchange, Receive, Send, Wrap, http_scope, respond
from tests.test_wsgi.test_replay import count

from replswitch import ConfigurationError
from replswitch.asgi import ReplicationMiddleware

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
"""What no server changes."""

HEADERS = [(b"content-length", b"7")]


def late(board: ASGIBoard, *pieces: bytes, fails: bool = False) -> App:
    """An application that writes after its response, as FastAPI does with the code behind the yield of a dependency."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await respond(send, board.page())
            return
        await respond(send, *pieces, status=201, headers=HEADERS)
        board.write(2)
        if fails:
            raise LookupError("the commit has failed")

    return app


@ON_ONE_SERVER
@pytest.mark.parametrize("pieces", [(b"written",), (b"written", b""), (b"", b"written", b"")])
def test_m7_with_the_option_hold_a_commit_after_a_response_in_one_piece_is_marked(
    board: ASGIBoard, pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    board.pair.stop_slave()
    browser = Browser(board.within(late(board, *pieces), hold=True))
    answer = browser.send("POST")
    assert (answer.code, answer.body, len(answer.cookies)) == (201, b"written", 1)
    assert browser.send().body == b"1 2"
    assert caplog.messages == []


@ON_ONE_SERVER
@pytest.mark.parametrize("hold", [True, False], ids=["with hold, in two pieces", "without hold, in one piece"])
def test_m7_a_commit_after_the_response_is_not_marked_without_hold_or_with_several_pieces(
    board: ASGIBoard, hold: bool
) -> None:
    app = board.within(late(board, b"wri", b"tten") if hold else late(board, b"written"), hold=hold)
    answer = Browser(app).send("POST")
    assert (answer.body, answer.cookies) == (b"written", [])


@ON_ONE_SERVER
def test_m7_with_the_option_hold_an_error_after_the_response_sends_a_marked_error_page_instead(
    board: ASGIBoard,
) -> None:
    board.pair.stop_slave()
    browser = Browser(board.within(late(board, b"written", fails=True), hold=True))
    failed(browser)
    assert browser.send().body == b"1 2"


@ON_ONE_SERVER
@pytest.mark.parametrize("hold", [True, False])
def test_m1_an_error_of_a_request_that_has_written_is_answered_with_a_marker(board: ASGIBoard, hold: bool) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await respond(send, board.page())
            return
        board.write(2)
        await send({"type": "http.response.start", "status": 201, "headers": HEADERS})
        raise LookupError("after the headers, and before the body")

    board.pair.stop_slave()
    browser = Browser(board.within(app, hold=hold))
    failed(browser)
    assert browser.send().body == b"1 2"


@ON_ONE_SERVER
def test_an_error_of_a_request_that_has_not_written_is_left_to_the_server(board: ASGIBoard) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise LookupError("nothing was written")

    exchange = Exchange(board.within(app), http_scope("POST"))
    with pytest.raises(LookupError):
        asyncio.run(exchange.run())
    assert exchange.messages == []


def failed(browser: Browser) -> None:
    """Send a POST that fails, and keep its cookie."""
    exchange = Exchange(browser.app, http_scope("POST"))
    with pytest.raises(LookupError):
        asyncio.run(exchange.run())
    assert (exchange.code, exchange.body, len(exchange.cookies)) == (500, b"Internal Server Error", 1)
    browser.keep(*exchange.cookies)


@ON_ONE_SERVER
def test_r5_with_the_option_hold_a_write_after_the_response_causes_the_replay(board: ASGIBoard) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await respond(send, b"counted")
        count(board)

    answer = Browser(board.within(app, hold=True)).send()
    assert (answer.body, answer.told.endswith("reason=replay"), len(answer.cookies)) == (b"counted", True, 1)
    assert board.on("master") == [1, 2]


def test_with_the_option_hold_a_stream_is_sent_piece_by_piece(wrap: Wrap) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            assert exchange.started.is_set()
            await send({"type": "http.response.body", "body": b"two"})

        exchange = Exchange(wrap(app, hold=True), http_scope())
        assert (await exchange.run()).body == b"onetwo"

    asyncio.run(main())


def test_with_the_option_hold_trailers_follow_the_body(wrap: Wrap) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await respond(send, b"one")
        await send({"type": "http.response.trailers", "headers": []})

    answer = Browser(wrap(app, hold=True)).send()
    assert [each["type"].rpartition(".")[2] for each in answer.messages] == ["start", "body", "trailers"]


def test_the_option_hold_must_be_true_or_false(wrap: Wrap) -> None:
    with pytest.raises(ConfigurationError, match="hold"):
        ReplicationMiddleware(late, "s", hold="yes")  # type: ignore[arg-type]
