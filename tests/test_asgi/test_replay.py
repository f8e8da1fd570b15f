"""A GET that reads and then writes in a transaction runs once more, on the master (R5)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.test_asgi.conftest import App, ASGIBoard, Browser, Exchange, Receive, Send, http_scope, respond
from tests.test_wsgi.test_replay import count

from replswitch import SlaveWriteError
from replswitch.decorators import use_master
from replswitch.state import stack

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
"""What no server changes."""


def counter(board: ASGIBoard, how: str = "in the request") -> App:
    """Return an application with a page that counts its views."""

    async def write() -> bytes:
        await asyncio.sleep(0)
        return count(board)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if how == "in a group of tasks":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(write())
            page = task.result()
        elif how == "in a thread":
            page = await asyncio.to_thread(count, board)
        else:
            page = count(board)
        await respond(send, page)

    return app


@pytest.mark.parametrize("how", ["in the request", "in a group of tasks", "in a thread"])
def test_r5_a_view_counter_counts_once_and_its_page_shows_it(board: ASGIBoard, how: str) -> None:
    app = board.within(counter(board, how))
    page = Browser(app).send()
    assert (page.code, page.body, page.told.endswith("reason=replay"), len(page.cookies)) == (200, b"1 2", True, 1)
    assert board.on("master") == [1, 2]
    page = Browser(app).send()
    assert (page.body, page.told.endswith("reason=learned"), len(page.cookies)) == (b"1 2 3", True, 1)
    assert board.on("master") == [1, 2, 3]
    assert stack() is None


@ON_ONE_SERVER
@pytest.mark.parametrize("empty", [0, 2])
def test_r5_a_stream_that_writes_before_its_first_piece_runs_again(board: ASGIBoard, empty: int) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(empty):
            await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.body", "body": count(board), "more_body": True})
        await send({"type": "http.response.body", "body": b"."})

    assert Browser(board.within(app)).send().body == b"1 2."
    assert board.on("master") == [1, 2]


@ON_ONE_SERVER
@pytest.mark.parametrize("caught", [Exception, BaseException])
@pytest.mark.parametrize(
    "raises", [True, False], ids=["and its error is raised again", "and its error is not raised again"]
)
def test_r5_an_error_page_of_the_first_try_is_discarded(board: ASGIBoard, caught: Any, raises: bool) -> None:
    """Even if it never ends."""
    pages: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            page = count(board)
        except caught as error:
            board.db.rollback()
            pages.append(type(error).__name__)
            await send({"type": "http.response.start", "status": 500, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"sorry", "more_body": True})
                pages.append("sent")
            if raises:
                raise
            return
        await respond(send, page)

    assert Browser(board.within(app)).send().body == b"1 2"
    assert pages == ([] if caught is Exception else ["Replay"]), "the first try went on after its first piece"


@ON_ONE_SERVER
def test_r5_the_second_try_gets_a_fresh_request(board: ASGIBoard) -> None:
    tries: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        tries.append((repr(scope), await receive()))
        scope["path"] = "/changed"
        scope["state"]["user"] = "Ann"
        scope["headers"].append((b"x-seen", b"yes"))
        del scope["scheme"]
        await send({"type": "http.response.start", "status": 500, "headers": [(b"x-try", b"1")]})
        page = count(board)
        await send({"type": "http.response.body", "body": page})

    page = Browser(board.within(app)).send()
    assert (page.body, len(page.messages)) == (b"1 2", 2)
    assert tries[0] == tries[1]
    assert tries[1][1] == {"type": "http.request", "body": b"", "more_body": False}


@ON_ONE_SERVER
def test_r5_what_is_left_of_the_first_try_sends_nothing_and_sees_a_disconnect(board: ASGIBoard) -> None:
    async def main() -> tuple[Exchange, list[Any]]:
        tasks: list[asyncio.Task[Any]] = []
        go = asyncio.Event()

        async def left_over(receive: Receive, send: Send) -> Any:
            await go.wait()
            await respond(send, b"sorry", status=500)
            return await receive()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(left_over(receive, send)))
            page = count(board)
            go.set()
            await asyncio.sleep(0.01)
            await respond(send, page)

        return await Browser(board.within(app)).asend(), await asyncio.gather(*tasks)

    page, messages = asyncio.run(main())
    assert (page.code, page.body, messages) == (200, b"1 2", [{"type": "http.disconnect"}])


@ON_ONE_SERVER
def test_r5_with_two_middlewares_a_view_counter_counts_once(board: ASGIBoard) -> None:
    app = board.within(board.within(counter(board), cookie_name="inner", debug_header=False))
    assert Browser(app).send().body == b"1 2"
    assert board.on("master") == [1, 2]


class TestDeclined:
    """A commit is never done twice: the error is raised, and the endpoint starts on the master from then on."""

    def refuse(self, board: ASGIBoard, app: App, body: bytes = b"", **options: Any) -> None:
        headers = (("content-length", str(len(body))),) if body else ()
        with pytest.raises(SlaveWriteError):
            Browser(board.within(app, **options)).send(body=body, headers=headers)
        with suppress(Exception):
            board.db.rollback()

    @ON_ONE_SERVER
    @pytest.mark.parametrize(
        "when",
        ["before", "in a finally", "after an error page", "after an error page, without an error"],
        ids=[
            "before the refused write",
            "in a finally",
            "after an error page",
            "after an error page, without an error",
        ],
    )
    def test_r5_no_replay_after_another_commit(self, board: ASGIBoard, when: str) -> None:
        def commit() -> None:
            board.db.rollback()
            with use_master():
                board.write(7)

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            if when == "before":
                commit()
                board.pair.wait_caught_up()
            try:
                page = count(board)
            except BaseException:
                if when in {"before", "in a finally"}:
                    raise
                with suppress(BaseException if when == "after an error page, without an error" else LookupError):
                    await respond(send, b"sorry", status=500)
                if when == "after an error page, without an error":
                    return commit()
                raise
            finally:
                if when in {"in a finally", "after an error page"}:
                    commit()
            return await respond(send, page)

        self.refuse(board, app)
        assert board.on("master") == [1, 7]

    @ON_ONE_SERVER
    def test_r5_no_replay_after_a_part_of_the_response_was_sent(self, board: ASGIBoard) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"out ", "more_body": True})
            await send({"type": "http.response.body", "body": count(board)})

        self.refuse(board, app)
        assert board.on("master") == [1]

    @ON_ONE_SERVER
    def test_r5_no_replay_with_replay_off(self, board: ASGIBoard) -> None:
        self.refuse(board, counter(board), replay=False)

    @ON_ONE_SERVER
    def test_r5_no_replay_of_a_request_with_a_body(self, board: ASGIBoard) -> None:
        self.refuse(board, counter(board), b"body")

    @ON_ONE_SERVER
    def test_r5_no_replay_of_a_body_without_a_length(self, board: ASGIBoard) -> None:
        """As over HTTP/2."""

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            assert (await receive())["body"] == b"body"
            await respond(send, count(board))

        with pytest.raises(SlaveWriteError):
            Browser(board.within(app)).send(body=b"body")
        board.db.rollback()

    @ON_ONE_SERVER
    def test_r5_no_replay_if_the_client_has_disconnected(self, board: ASGIBoard) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            await respond(send, count(board))

        async def main() -> None:
            exchange = Exchange(board.within(app), http_scope())
            exchange.gone.set()
            with pytest.raises(SlaveWriteError):
                await exchange.run()

        asyncio.run(main())
        board.db.rollback()

    @ON_ONE_SERVER
    def test_r5_a_cancelled_request_does_not_run_again(self, board: ASGIBoard) -> None:
        tries: list[str] = []

        async def main() -> None:
            waits = asyncio.Event()

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                tries.append(scope["method"])
                with suppress(BaseException):
                    count(board)
                board.db.rollback()
                waits.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(Browser(board.within(app)).asend())
            await waits.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert tries == ["GET"]
