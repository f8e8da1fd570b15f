"""What a request tells: the debug header; and what it hands on to jobs: `carry` and `resume` in asyncio tasks."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from tests.test_asgi.conftest import ASGIBoard, Browser, Receive, Send, respond

import replswitch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

pytestmark = pytest.mark.parametrize("served", ["sqlite"], indirect=True)


def test_the_debug_header_lists_the_servers_that_tasks_and_threads_have_used(board: ASGIBoard) -> None:
    @use_master
    async def on_the_master() -> None:
        board.numbers()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        board.numbers()
        await asyncio.create_task(on_the_master())
        await asyncio.to_thread(board.numbers)
        await respond(send, b"")

    async def main() -> list[str]:
        served = board.within(app)
        return [answer.told for answer in await asyncio.gather(*[Browser(served).asend() for _ in range(3)])]

    slave = "slave; server=slave.db; reason=method"
    assert asyncio.run(main()) == [f"{slave}, master; server=master.db; reason=use_master, {slave}"] * 3


def test_m1_jobs_in_tasks_of_their_own_see_what_their_requests_have_written(board: ASGIBoard) -> None:
    board.pair.stop_slave()
    pages: dict[str, bytes] = {}

    async def job(name: str, token: str) -> None:
        assert stack() is None
        with replswitch.resume(token), use_slave():
            await asyncio.sleep(0.01)  # the jobs take turns
            pages[name] = board.page()
        assert stack() is None

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST":
                board.write(2)
            work = job(scope["method"], replswitch.carry())
            tasks.append(asyncio.get_running_loop().create_task(work, context=contextvars.Context()))
            await respond(send, b"", status=202)

        served = board.within(app)
        await Browser(served).asend("POST")
        await Browser(served).asend("GET")
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert pages == {"POST": b"1 2", "GET": b"1"}
