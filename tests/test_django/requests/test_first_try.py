"""The first try of a request that runs again: its remains, and its work before the view is known (R5)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from tests.test_django.project.models import Message
from tests.test_django.requests.board import MIDDLEWARE, answer, connection, shown, through_asgi, write
from tests.test_django.requests.test_replay import acounter, counter, tagging_path

from replswitch import ReplSwitchError
from replswitch.decorators import use_master

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors


def test_r5_a_view_that_is_not_hashable_runs_again(site: Site, new_visitor: Visitors) -> None:
    class View:
        __hash__ = None  # type: ignore[assignment]  # like a dataclass

        def __call__(self, request: HttpRequest) -> HttpResponse:
            return counter(request)

    site.serve(counter=View())
    assert [new_visitor().get("/counter").text for _ in range(2)] == ["2", "3"]


def test_r5_a_transaction_that_has_read_before_the_view_is_known_loses_no_update(
    site: Site, new_visitor: Visitors
) -> None:
    def reading(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
        @transaction.atomic
        def middleware(request: HttpRequest) -> HttpResponse:
            request.last = Message.objects.get()  # type: ignore[attr-defined]  # middleware often does this
            return get_response(request)

        return middleware

    def view(request: Any) -> HttpResponse:
        request.last.body = str(int(request.last.body) + 1)
        request.last.save()
        return answer(shown())

    site.change(MIDDLEWARE=[MIDDLEWARE, tagging_path(reading)])
    site.serve(counter=view)
    site.pair.lag = 60
    assert [new_visitor().get("/counter").text for _ in range(3)] == ["2", "3", "4"]
    site.pair.lag = 0
    site.pair.wait_caught_up()


def test_r5_a_task_that_the_first_try_leaves_behind_writes_nothing(site: Site) -> None:
    left: list[asyncio.Task[None]] = []
    counted = asyncio.Event()

    async def write_later() -> None:
        await counted.wait()
        with use_master():
            await sync_to_async(write)(7)

    async def view(request: HttpRequest) -> HttpResponse:
        if not left:
            left.append(asyncio.create_task(write_later()))
            response, _ = await asyncio.gather(acounter(request), left[0])
            return response
        response = await acounter(request)
        counted.set()
        await asyncio.wait(left)
        return response

    site.serve(counter=view)
    assert through_asgi("GET", "/counter", {}).text == "2"
    assert site.on("master") == "2"
    assert isinstance(left[0].exception(), ReplSwitchError)


@pytest.mark.parametrize("kind", ["raised in a thread pool", "replaced by another error"])
def test_r5_an_error_of_the_first_try_is_not_logged(
    site: Site, new_visitor: Visitors, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def close_after(call: Callable[[HttpRequest], HttpResponse], request: HttpRequest) -> HttpResponse:
        try:
            return call(request)
        finally:
            connection.close()

    def view(request: HttpRequest) -> HttpResponse:
        if kind == "raised in a thread pool":
            context = contextvars.copy_context()
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(context.run, close_after, counter, request).result()
        try:
            return counter(request)
        except BaseException as error:
            raise RuntimeError from error

    site.serve(counter=view)
    assert (new_visitor().get("/counter").text, site.on("master")) == ("2", "2")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
