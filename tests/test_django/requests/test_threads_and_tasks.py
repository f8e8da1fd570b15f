"""Threads and tasks that mix GET and POST: not one query on the wrong side, as the servers' general logs have it.

Each query says in a comment which side it must run on. It lasts for some seconds; for half a minute each with
REPLSWITCH_LONG=1 in the environment.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from tests.test_django.project.dialect import IS_POSTGRESQL
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import Site, Visitor, answer, connection, live_server

from django_replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.test_django.requests.board import Page

LONG = bool(os.environ.get("REPLSWITCH_LONG"))

LASTS = 30 if LONG else 2.5
"""For how many seconds threads and tasks begin new visits. Visits that have begun are completed after that."""

THREADS, TASKS = 8, 100 if LONG else 30


def ask(side: str, number: str) -> int:
    """Count a message, with a query that must run on this side."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT /* side={side} */ COUNT(*) FROM project_message WHERE body = %s", [number])
        return int(cursor.fetchall()[0][0])


def put(number: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT /* side=master */ INTO project_message (body) VALUES (%s)", [number])


def sync_view(request: HttpRequest) -> HttpResponse:
    """``?n=…`` is a message, ``?side=…`` where a plain read of this visitor must run."""
    number, side = request.GET["n"], request.GET["side"]
    if request.method == "POST":
        with use_slave():
            ask("slave" if side == "slave" else "master", "0")
        put(number)
        with connection.use_slave():
            return answer(ask("master", number))  # an own write
    with use_slave():
        found = ask(side, number)
    found += ask(side, number)
    with use_master():
        ask("master", number)
    return answer(min(found, 1))


async def async_view(request: HttpRequest) -> HttpResponse:
    number, side = request.GET["n"], request.GET["side"]
    if request.method == "POST":
        await sync_to_async(put)(number)
        await asyncio.sleep(0)
        with use_slave():
            return answer(await sync_to_async(ask)("master", number))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sync_to_async(ask)(side, number)) for _ in range(2)]
    await asyncio.sleep(0)
    with use_master():
        await sync_to_async(ask)("master", number)
    return answer(tasks[0].result())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    number, side = request.GET["n"], request.GET["side"]

    def pieces() -> Iterator[str]:
        yield str(ask(side, number))
        yield ""
        ask(side, number)

    return StreamingHttpResponse(pieces())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    number, side = request.GET["n"], request.GET["side"]

    async def pieces() -> AsyncIterator[str]:
        yield str(await sync_to_async(ask)(side, number))
        await asyncio.sleep(0)
        await sync_to_async(ask)(side, number)

    return StreamingHttpResponse(pieces())


numbers = itertools.count(1000)


def visit(paths: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """The requests of one visitor: method, path with query, and the expected response, "" for any."""
    number = next(numbers)
    for path in paths:
        yield "GET", f"{path}?n={number}&side=slave", "0"
    yield "POST", f"{paths[number % 2]}?n={number}&side=slave", "1"
    for path in paths:
        yield "GET", f"{path}?n={number}&side=master", "1"
    yield "POST", f"{paths[number % 2]}?n={number}a&side=master", "1"
    yield "GET", f"{paths[0]}?n={number}a&side=master", "1"


def wrong(asked: tuple[str, str, str], page: Page) -> list[str]:
    """The fault in a response."""
    method, path, wanted = asked
    return [] if (page.status, page.text) == (200, wanted) else [f"{method} {path}: {page.status} {page.text[:200]}"]


@contextmanager
def every_query_on_its_side(site: Site) -> Iterator[None]:
    """Look into the general logs of both servers when the block has ended."""
    site.serve(sync=sync_view, **{"async": async_view, "stream": stream, "async_stream": async_stream})
    site.pair.stop_slave()
    with ExitStack() as recording:
        if not IS_POSTGRESQL:
            # With mysqlclient each task may have two connections to the master; many are over the server's own limit.
            admin: Any = recording.enter_context(closing(site.pair.admin("master")))
            setting = "SET GLOBAL max_connections = "
            admin.query(setting + "1000")
            recording.callback(admin.query, setting + "DEFAULT")
        master = recording.enter_context(site.pair.statements("master"))
        slave = recording.enter_context(site.pair.statements("slave"))
        yield
    assert [sql for sql in master if "side=slave" in sql] == []
    assert [sql for sql in slave if "side=master" in sql] == []
    for log, side in ((master, "master"), (slave, "slave")):
        assert any(f"side={side}" in sql for sql in log)


class Client(threading.Thread):
    """A visitor of the live server.

    Attributes:
        wrong: what was wrong.
        visits: how many times it came.
    """

    def __init__(self, door: Any, until: float) -> None:
        super().__init__()
        self.door, self.until = door, until
        self.wrong: list[str] = []
        self.visits = 0

    def run(self) -> None:
        try:
            while time.monotonic() < self.until and not self.wrong:
                visitor = Visitor(self.door)
                for asked in visit(("/sync", "/async", "/stream")):
                    if "side=slave" in asked[1]:
                        visitor.jar.clear()  # another visitor
                    self.wrong += wrong(asked, visitor.send(*asked[:2]))
                self.visits += 1
        except Exception as error:  # noqa: BLE001 - the test reports it
            self.wrong.append(repr(error))


def test_parallel_threads_run_every_query_in_the_state_of_its_request(site: Site) -> None:
    with every_query_on_its_side(site), live_server(THREADS) as door:
        until = time.monotonic() + LASTS
        clients = [Client(door, until) for _ in range(THREADS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert [client.wrong for client in clients] == [[]] * THREADS
        assert min(client.visits for client in clients) > 0


def test_parallel_async_requests_run_every_query_in_the_state_of_its_request(site: Site) -> None:
    async def one(application: Any, until: float) -> list[str]:
        found: list[str] = []
        while time.monotonic() < until and not found:
            jar: dict[str, str] = {}
            for asked in visit(("/async", "/sync", "/async_stream")):
                if "side=slave" in asked[1]:
                    jar.clear()  # another visitor
                headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())} if jar else {}
                page = await Exchange(*asked[:2], headers).run(application)
                jar |= {name: morsel.value for name, morsel in page.cookies.items()}
                found += wrong(asked, page)
        return found

    async def main() -> list[list[str]]:
        until = time.monotonic() + LASTS
        return await asyncio.gather(*(one(get_asgi_application(), until) for _ in range(TASKS)))

    with every_query_on_its_side(site):
        assert asyncio.run(main()) == [[]] * TASKS
