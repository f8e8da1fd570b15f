"""Websockets of Channels: the handshake has a marker and gets one, and each message sees what was written before."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.asgi import get_asgi_application
from django.db import transaction
from django.urls import path
from tests.test_asgi.conftest import required
from tests.test_asgi.sockets import open_socket
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import Page, Site, Visitor, connection, shown, write

from django_replswitch.asgi import HttpConsumerMiddleware, WebsocketMiddleware
from replswitch import ConfigurationError, SlaveWriteError
from replswitch.decorators import use_slave

http = required("channels.generic.http")
consumers, routing = required("channels.generic.websocket"), required("channels.routing")
database_sync_to_async = required("channels.db").database_sync_to_async


def command(text: str) -> str:
    """Do what a message asks for, and answer it."""
    if text.startswith("write "):
        write(text.removeprefix("write "))
    with use_slave():
        return shown() if text == "read" else str(connection.state)


class Asynchronous(consumers.AsyncWebsocketConsumer):  # type: ignore[misc, name-defined]  # without types
    """An asynchronous consumer, whose queries run in threads."""

    async def connect(self) -> None:
        if number := self.scope["query_string"]:
            await database_sync_to_async(write)(number.decode())
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await database_sync_to_async(command)(text_data))


class Synchronous(consumers.WebsocketConsumer):  # type: ignore[misc, name-defined]  # likewise
    """A consumer that runs in a thread as a whole."""

    def connect(self) -> None:
        if number := self.scope["query_string"]:
            write(number.decode())
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(command(text_data or ""))


@pytest.fixture(params=[Asynchronous, Synchronous])
def application(request: pytest.FixtureRequest) -> Any:
    chat = routing.URLRouter([path("", request.param.as_asgi())])
    return routing.ProtocolTypeRouter({"http": get_asgi_application(), "websocket": WebsocketMiddleware(chat)})


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine; code that Channels runs in threads uses the connections of this thread."""
    async_to_sync(work)()


def test_m1_a_websocket_sees_what_its_visitor_writes(site: Site, application: Any) -> None:
    visitor = site.visitor()
    site.pair.stop_slave()
    visitor.post("/?n=2")

    async def work() -> None:
        async with open_socket(application, cookie=visitor.cookie) as socket:
            assert await socket.ask("read") == "1 2"
            await socket.ask("write 3")
            assert await socket.ask("read") == "1 2 3"
        async with open_socket(application) as socket:
            assert await socket.ask("read") == "1", "the marker reached another visitor"

    run(work)
    site.assert_lagged()


def test_m1_a_write_before_the_accept_marks_the_handshake(site: Site, application: Any) -> None:
    site.pair.stop_slave()

    async def work() -> list[str]:
        async with open_socket(application, query_string=b"2") as socket:
            return socket.values("set-cookie")

    cookies: list[str] = []

    async def main() -> None:
        cookies.extend(await work())

    run(main)
    (cookie,) = cookies
    assert site.visitor().get().text == "1"
    assert site.visitor().get(Cookie=cookie.partition(";")[0]).text == "1 2"


def test_m1_no_query_for_the_position_of_a_write_stops_the_event_loop(
    site: Site, application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    opens = type(connection.driver).open

    def spy(*args: Any, **options: Any) -> Any:
        opened.append(_get_running_loop() is not None)
        return opens(*args, **options)

    async def main() -> None:
        async with open_socket(application, query_string=b"2") as socket:
            assert socket.values("set-cookie")

    monkeypatch.setattr(type(connection.driver), "open", spy)
    run(main)
    assert not any(opened), "a connection was opened in the thread of the event loop"


def test_an_application_that_cannot_be_called_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'chat' cannot be called"):
        WebsocketMiddleware("chat")  # type: ignore[arg-type]


class OverHttp(http.AsyncHttpConsumer):  # type: ignore[misc, name-defined]  # likewise
    """A consumer for HTTP, which Django's middleware does not serve."""

    async def handle(self, body: bytes) -> None:
        run = {b"": database_sync_to_async, b"plain": sync_to_async}[self.scope["query_string"]]
        if self.scope["method"] == "POST":
            await run(write)("2")
        with use_slave():
            text = await run(shown)()
        await self.send_response(200, text.encode())


@pytest.mark.parametrize("query", ["", "?plain"], ids=["database_sync_to_async", "sync_to_async"])
def test_m1_a_write_of_an_http_consumer_is_marked(site: Site, query: str) -> None:
    consumer: Any = HttpConsumerMiddleware(OverHttp.as_asgi())
    rest: Any = get_asgi_application()
    routes = [path("consumer", consumer), path("", rest)]
    application = routing.ProtocolTypeRouter({"http": routing.URLRouter(routes)})

    def door(method: str, path: str, headers: dict[str, str]) -> Page:
        return async_to_sync(Exchange(method, path, headers).run)(application)

    def override(request: Any) -> str:
        request.build_absolute_uri()  # which a connection scope has not
        return "slave"

    site.options(OVERRIDE=override)
    site.pair.stop_slave()
    visitor = Visitor(door)
    page = visitor.post(f"/consumer{query}")
    assert page.text == "1 2", "the consumer does not see its own write"
    assert int(page.markers[0]["max-age"]) > 60, "the position was not known"
    assert visitor.get().text == visitor.get(f"/consumer{query}").text == "1 2"
    page = Visitor(door).get(f"/consumer{query}")
    assert (page.text, page.side, page.markers) == ("1", "slave", [])
    site.assert_lagged()


class Counting(http.AsyncHttpConsumer):  # type: ignore[misc, name-defined]  # likewise
    """A consumer that puts an item into the session, and then reads and writes in one transaction."""

    @staticmethod
    @transaction.atomic
    def count() -> str:
        write(len(shown().split()) + 1)
        return shown()

    async def handle(self, body: bytes) -> None:
        self.scope["session"].append("item")
        await self.send_response(200, (await database_sync_to_async(self.count)()).encode())


def test_r5_an_http_consumer_does_not_run_twice_because_its_session_would_keep_what_the_first_try_has_done(
    site: Site,
) -> None:
    """A middleware of Channels has made the session before, so it cannot be reset."""
    session: list[str] = []
    consumer: Any = HttpConsumerMiddleware(Counting.as_asgi())

    async def with_session(scope: Any, receive: Any, send: Any) -> None:
        await consumer({**scope, "session": session}, receive, send)

    def get() -> Page:
        return async_to_sync(Exchange("GET", "/count").run)(with_session)

    with pytest.raises(SlaveWriteError, match="not moved to the master"):
        get()
    assert session == ["item"]
    assert site.on("master") == "1"
    assert get().text == "1 2", "the next request did not begin on the master"
    assert session == ["item"] * 2
