"""Threads that a view waits for: their commits, on connections of their own, count for the request (M1)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from tests.test_django.requests.board import Site, answer, connection, connections, shown, write

from django_replswitch.decorators import use_master

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.test_django.requests.conftest import Visitors


def in_autocommit_mode() -> None:
    write(2)


def in_a_block() -> None:
    with transaction.atomic():
        write(2)


def in_a_use_master_block() -> None:
    with use_master():
        write(2)


@pytest.mark.parametrize("work", [in_autocommit_mode, in_a_block, in_a_use_master_block])
def test_m1_a_commit_in_a_thread_that_the_view_waits_for_is_marked(
    site: Site, new_visitor: Visitors, work: Callable[[], None]
) -> None:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    def view(request: HttpRequest) -> HttpResponse:
        thread = Thread(target=run)
        thread.start()
        thread.join()
        return answer("written", 302)

    site.serve(view=view)
    site.pair.lag = 60
    visitor = new_visitor()
    page = visitor.post("/view")
    (marker,) = page.markers
    assert int(marker["max-age"]) > 60, "the position was not known"
    assert visitor.get().text == "1 2"
    assert new_visitor().get().text == "1"
    site.assert_lagged()


def test_m1_each_request_is_marked_for_its_commit_in_a_pool_with_open_connections(
    site: Site, new_visitor: Visitors
) -> None:
    """Django never closes the connections of such threads. Each request still finds exactly its own commits."""
    site.pair.lag = 60
    with ThreadPoolExecutor(1) as pool:

        def view(request: HttpRequest) -> HttpResponse:
            if request.method == "POST":
                pool.submit(write, request.GET["n"]).result()
            return answer(pool.submit(shown).result())

        site.serve(view=view)
        for number in (2, 3):
            visitor = new_visitor()
            assert len(visitor.post(f"/view?n={number}").markers) == 1
            assert visitor.get().text == " ".join(map(str, range(1, number + 1)))
            assert new_visitor().get("/view").markers == []
        pool.submit(connections.close_all).result()
    site.assert_lagged(3)


def test_m1_a_commit_in_an_executor_of_an_async_view_is_marked(site: Site, new_visitor: Visitors) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        with ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, write, 2)
            await loop.run_in_executor(pool, connections.close_all)
        return answer("written", 302)

    site.serve(view=view)
    site.pair.lag = 60
    visitor = new_visitor()
    assert len(visitor.post("/view").markers) == 1
    assert visitor.get().text == "1 2"
    site.assert_lagged()


def test_m1_a_commit_in_a_thread_is_marked_by_a_decorator_without_the_middleware(
    site: Site, new_visitor: Visitors
) -> None:
    @use_master
    def view(request: HttpRequest) -> HttpResponse:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write, 2).result()
            pool.submit(connections.close_all).result()
        return answer("written")

    site.change(MIDDLEWARE=[])
    site.serve(view=view)
    assert len(new_visitor().post("/view").markers) == 1
