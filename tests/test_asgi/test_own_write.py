"""No visitor misses their own write, however they wrote: on each kind of pair, with each of its drivers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from tests.test_asgi.conftest import ASGIBoard, Browser, Exchange, Receive, Send, http_scope, respond
from tests.test_wsgi.conftest import Browser as WSGIBrowser

import replswitch
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.state import stack

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
"""What no server changes."""


@pytest.mark.parametrize("status", ["201", "302", "404"])
def test_m1_the_next_get_sees_the_write(board: ASGIBoard, status: str) -> None:
    browser = Browser(board.app)
    board.pair.stop_slave()
    assert browser.send().body == b"1"
    assert len(browser.send("POST", f"n=2&status={status}").cookies) == 1
    answer = browser.send()
    assert (answer.body, answer.side, answer.cookies) == (b"1 2", "master", [])
    assert Browser(board.app).send().body == b"1", "the marker reached another visitor"
    board.pair.start_slave()
    board.pair.wait_caught_up()
    answer = browser.send()
    assert (answer.body, answer.side) == (b"1 2", "slave")


@pytest.mark.parametrize("how", ["a thread", "a task", "the request itself"])
def test_m1_a_write_in_a_thread_or_task_is_in_the_marker(board: ASGIBoard, how: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            page = await asyncio.to_thread(board.page) if how == "a thread" else board.page()
            return await respond(send, page)

        async def write() -> None:
            board.write(2)

        if how == "a thread":
            await asyncio.to_thread(board.write, 2)
        else:
            await (asyncio.create_task(write()) if how == "a task" else write())
        return await respond(send, b"written", status=201)

    browser = Browser(board.within(app))
    board.pair.stop_slave()
    assert len(browser.send("POST").cookies) == 1
    assert browser.send().body == b"1 2"


@pytest.mark.parametrize("served", ["mariadb", "mariadb-mysqlclient", "sqlite"], indirect=True)
def test_m1_a_commit_in_a_thread_that_still_holds_its_connection_is_marked(board: ASGIBoard) -> None:
    """As of a synchronous dependency of FastAPI, whose session is closed after the response."""
    driver = {"pymysql": "mysql+pymysql", "mysqlclient": "mysql+mysqldb", "sqlite3": "sqlite"}[board.driver]
    master, slave = (create_engine(url(driver, each)) for each in (board.pair.master, *board.pair.slaves))
    replicate(master, [slave])
    sessions: list[RoutingSession] = []

    def write() -> None:
        session = RoutingSession(master)
        sessions.append(session)
        session.execute(text("INSERT INTO wsgi_message VALUES (2)"))
        session.commit()
        session.execute(text("SELECT 1"))

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            return await respond(send, board.page())
        await asyncio.to_thread(write)
        return await respond(send, b"written", status=201)

    async def main() -> None:
        browser = Browser(board.within(app))
        board.pair.stop_slave()
        assert len((await browser.asend("POST")).cookies) == 1
        await asyncio.to_thread(sessions[0].close)
        assert (await browser.asend()).body == b"1 2"

    asyncio.run(main())
    master.dispose()
    slave.dispose()


def url(driver: str, settings: dict[str, Any]) -> str:
    """The address of a server for SQLAlchemy."""
    if driver == "sqlite":
        return f"sqlite:///{settings['database']}"
    return "{}://{user}:{password}@{host}:{port}/{database}".format(driver, **settings)


@ON_ONE_SERVER
def test_m1_each_of_many_concurrent_visitors_sees_their_own_write(board: ASGIBoard) -> None:
    board.pair.stop_slave()

    async def visit(number: int) -> bool:
        browser = Browser(board.app)
        await browser.asend("POST", f"n={number}&status=201")
        return str(number).encode() in (await browser.asend()).body.split()

    async def main() -> list[bool]:
        return list(await asyncio.gather(*map(visit, range(2, 22))))

    assert all(asyncio.run(main()))


@ON_ONE_SERVER
def test_m1_an_error_page_that_the_application_sends_itself_is_marked(board: ASGIBoard) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            board.write(2)
            raise LookupError
        except LookupError:
            await respond(send, b"sorry", status=500)  # as Starlette does
            raise

    async def main() -> Exchange:
        exchange = Exchange(board.within(app), http_scope("POST"))
        with pytest.raises(LookupError):
            await exchange.run()
        return exchange

    assert len(asyncio.run(main()).cookies) == 1


@ON_ONE_SERVER
@pytest.mark.parametrize("pieces", [(b"",), (b"", b"one"), (b"one",)])
def test_m7_a_commit_before_the_first_piece_is_marked_and_a_later_one_is_logged(
    board: ASGIBoard, pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in pieces:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        with use_master():
            board.write(2)
            board.write(3)
        await send({"type": "http.response.body", "body": b"two"})

    answer = Browser(board.within(app)).send("POST")
    is_marked = not any(pieces)
    lines = [record for record in caplog.records if "after the response's headers were sent" in record.message]
    assert (len(answer.cookies), len(lines)) == ((1, 0) if is_marked else (0, 1))
    assert all(" in write. " in line.message for line in lines), "the line of the application is not named"


@ON_ONE_SERVER
@pytest.mark.parametrize("how", ["in the request", "in a thread", "in a task that outlives the request"])
def test_m7_a_background_task_sees_its_own_writes_and_one_log_line_reports_the_missing_marker(
    board: ASGIBoard, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    board.pair.stop_slave()
    pages: list[bytes] = []

    def work() -> None:
        board.write(2)
        board.write(3)
        with use_slave():
            pages.append(board.page())

    async def main() -> Exchange:
        over = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def later() -> None:
            await over.wait()
            work()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            if how == "in a task that outlives the request":
                tasks.append(asyncio.create_task(later()))
            await respond(send, b"accepted", status=202)
            if how == "in the request":
                work()
            elif how == "in a thread":
                await asyncio.to_thread(work)

        answer = await Browser(board.within(app)).asend("POST")
        over.set()
        for task in tasks:
            await task
        return answer

    answer = asyncio.run(main())
    lines = [record for record in caplog.records if "after the response's headers were sent" in record.message]
    assert (pages, answer.cookies, len(lines)) == ([b"1 2 3"], [], 1)
    assert " in write. " in lines[0].message, "the line of the application is not named"


@ON_ONE_SERVER
def test_m1_carry_and_resume_hand_the_write_to_a_task_without_context(board: ASGIBoard) -> None:
    board.pair.stop_slave()
    pages: list[bytes] = []

    def job(token: str) -> None:
        assert stack() is None
        with replswitch.resume(token), use_slave():
            pages.append(board.page())

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        board.write(2)
        token = replswitch.carry()
        await asyncio.get_running_loop().run_in_executor(None, job, token)  # starts without the context
        await respond(send, b"", status=202)

    assert len(Browser(board.within(app)).send("POST").cookies) == 1
    assert pages == [b"1 2"]


@ON_ONE_SERVER
def test_m1_a_cancelled_request_makes_no_marker_and_does_not_affect_the_next_request(board: ASGIBoard) -> None:
    async def main() -> None:
        wrote, never = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST":
                board.write(2)
                wrote.set()
                await never.wait()
            await respond(send, board.page())

        served = board.within(app)
        task = asyncio.create_task(Browser(served).asend("POST"))
        await wrote.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        answer = await Browser(served).asend()
        assert (answer.side, answer.cookies) == ("slave", [])

    asyncio.run(main())


class TestWithin:
    """A request that is made within another one, in the same process."""

    @ON_ONE_SERVER
    def test_m1_a_write_of_an_inner_request_is_in_the_marker_of_the_outer_response(self, board: ASGIBoard) -> None:
        inner = board.within(board.answer, cookie_name="inner_updated")
        pages: list[bytes] = []

        async def outer(scope: Any, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST":
                board.write(2)
                pages.append((await Browser(inner).asend()).body)
                await Browser(inner).asend("POST", "n=3")
            await respond(send, board.page(), status=201)

        board.pair.stop_slave()
        browser = Browser(board.within(outer))
        assert [each.partition("=")[0].rstrip("_123") for each in browser.send("POST").cookies] == ["just_updated"]
        assert pages == [b"1 2"], "the inner request missed what the outer one had written"
        assert browser.send().body == b"1 2 3"

    @ON_ONE_SERVER
    @pytest.mark.parametrize("server", ["asgi", "wsgi"], ids=["later request under ASGI", "later request under WSGI"])
    def test_m1_a_request_in_the_context_of_an_ended_request_gets_none_of_the_ended_request_s_writes(
        self, board: ASGIBoard, server: str
    ) -> None:
        """As with a server that runs the next request of a connection in the context of the one before."""
        board.pair.stop_slave()
        told: list[str] = []

        async def main() -> None:
            over = asyncio.Event()

            async def later() -> None:
                await over.wait()
                if server == "asgi":
                    told.append((await Browser(board.app).asend("POST", "n=7")).side)
                    told.append((await Browser(board.app).asend()).told)
                else:
                    told.append(WSGIBrowser(board.application).send("POST", "n=7").side)
                    told.append(WSGIBrowser(board.application).send().told)

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                tasks.append(asyncio.create_task(later()))
                board.write(2)
                await respond(send, b"", status=201)

            tasks: list[asyncio.Task[None]] = []
            await Browser(board.within(app)).asend("POST")
            over.set()
            await tasks[0]

        asyncio.run(main())
        assert told[0] == "master"
        assert told[1].startswith("slave")
