"""Websockets of Channels: the handshake has a marker and gets one, and each message sees what was written before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.asgi import get_asgi_application
from django.urls import path
from tests.test_asgi.conftest import required
from tests.test_asgi.sockets import open_socket
from tests.test_django.requests.board import Site, connection, shown, write

from django_replswitch.asgi import WebsocketMiddleware
from replswitch import ConfigurationError
from replswitch.decorators import use_slave

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


def test_an_application_that_cannot_be_called_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'chat' cannot be called"):
        WebsocketMiddleware("chat")  # type: ignore[arg-type]
