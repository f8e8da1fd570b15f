"""A strict server of one websocket, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.test_asgi.conftest import App, Message, http_scope

from replswitch.state import stack

REFUSAL: dict[str, Any] = {"websocket.http.response": {}}
"""The extension with which a handshake can be refused with headers."""


def socket_scope(cookie: str | None = None, path: str = "/", **extra: Any) -> dict[str, Any]:
    """A connection scope of a websocket as a server makes it."""
    scope = http_scope(path=path, cookie=cookie, scheme="ws", subprotocols=[], extensions=REFUSAL) | extra
    del scope["method"]
    return scope | {"type": "websocket"}


class Socket:
    """One websocket as a server sees it. Whenever the application calls it, it looks whether the stack is its own.

    Attributes:
        sent: what the application has sent, in this order.
    """

    def __init__(self, app: App, **extra: Any) -> None:
        self.sent: list[Message] = []
        self._from_client: asyncio.Queue[Message] = asyncio.Queue()
        self._to_client: asyncio.Queue[Message] = asyncio.Queue()
        self._app, self._scope = app, socket_scope(**extra)
        self._from_client.put_nowait({"type": "websocket.connect"})

    async def run(self) -> None:
        self._stack = stack()
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._look()

    def _look(self) -> None:
        assert stack() is self._stack, "the state was held while the server worked"

    async def _receive(self) -> Message:
        self._look()
        message = await self._from_client.get()
        self._look()
        return message

    async def _send(self, message: Message) -> None:
        self._look()
        await asyncio.sleep(0)
        self._look()
        self.sent.append(message)
        self._to_client.put_nowait(message)

    async def answer(self) -> Message:
        """The next message of the application."""
        return await asyncio.wait_for(self._to_client.get(), 30)

    async def ask(self, text: str) -> str:
        """Send a message, and return the next one of the application."""
        self._from_client.put_nowait({"type": "websocket.receive", "text": text})
        return str((await self.answer())["text"])

    def close(self) -> None:
        self._from_client.put_nowait({"type": "websocket.disconnect", "code": 1000})

    def values(self, name: str) -> list[str]:
        """All headers of one name in the answer to the handshake."""
        return [value.decode() for key, value in self.sent[0].get("headers", ()) if key.decode() == name]


@asynccontextmanager
async def open_socket(app: App, **extra: Any) -> AsyncIterator[Socket]:
    """A websocket that the application has answered."""
    socket = Socket(app, **extra)
    task = asyncio.create_task(socket.run())
    answered = asyncio.ensure_future(socket.answer())
    await asyncio.wait([task, answered], return_when=asyncio.FIRST_COMPLETED)
    if not answered.done():
        answered.cancel()
        await task
    yield socket
    socket.close()
    await task
