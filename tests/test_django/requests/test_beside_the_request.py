"""Writes of an asynchronous view in other threads than the one for synchronous code: their positions are known (M1)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.asgi import get_asgi_application
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from tests.test_django.project.models import Message
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import Site, Visitor, answer, shown, through_asgi, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.test_django.requests.board import Page


def put(number: int) -> str:
    """Write a message in a transaction, and close the thread's connections if another thread will not use them."""
    with transaction.atomic():
        write(number)
    return shown()


async def in_a_thread_of_the_loop() -> object:
    return await sync_to_async(put, thread_sensitive=False)(2)


async def in_several_threads() -> object:
    return await asyncio.gather(*[sync_to_async(put, thread_sensitive=False)(2) for _ in range(3)])


async def in_two_threads_one_after_the_other() -> object:
    await sync_to_async(put)(3)
    return await asyncio.to_thread(put, 2)


async def in_an_executor_with_the_context() -> object:
    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, contextvars.copy_context().run, put, 2)
        await loop.run_in_executor(pool, connections.close_all)
    return None


async def by_a_method_of_the_model() -> object:
    return await Message.objects.acreate(body="2")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "work",
    [
        in_a_thread_of_the_loop,
        in_several_threads,
        in_two_threads_one_after_the_other,
        in_an_executor_with_the_context,
        by_a_method_of_the_model,
    ],
)
def test_m1_a_write_of_any_thread_with_the_context_is_marked_with_its_position(
    site: Site, work: Callable[[], Awaitable[object]], method: str
) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        await work()
        return answer("written")

    site.serve(view=view)
    site.pair.stop_slave()
    visitor = Visitor(through_asgi)
    (marker,) = visitor.send(method, "/view").markers
    assert int(marker["max-age"]) > 60, "the position was not known"
    assert "2" in visitor.get().text.split()
    assert Visitor(through_asgi).get().text == "1"
    site.assert_lagged()
    site.pair.start_slave()
    site.pair.wait_caught_up()
    page = visitor.get()
    assert (page.side, page.text.split()[:1]) == ("slave", ["1"]), "no slave reaches the position"


def test_m7_a_write_in_a_task_that_outlives_its_request_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def view(request: HttpRequest) -> HttpResponse:
        answered.clear()
        tasks.append(asyncio.create_task(later()))
        return answer("begun")

    async def later() -> None:
        await answered.wait()
        await sync_to_async(Message.objects.update, thread_sensitive=False)(body="2")

    async def main() -> Page:
        page = await Exchange("POST", "/view").run(get_asgi_application())
        answered.set()
        await tasks[0]
        return page

    site.serve(view=view)
    answered = asyncio.Event()
    with caplog.at_level(logging.WARNING, "replswitch"):
        assert async_to_sync(main)().markers == []
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("replswitch")]
    assert "A write was committed after the response's headers were sent" in message
