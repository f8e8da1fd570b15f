"""A small ASGI server: one request at a time, and the client may go away in the middle of the response."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from tests.test_django.requests.board import Page, text_of


@dataclass
class Exchange:
    """One request to an ASGI application, and what has come back so far.

    Attributes:
        leave_after: the client disconnects after this many chunks of the body; None to stay.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    leave_after: int | None = None
    status: int = 0
    answered: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)

    async def run(self, application: Any) -> Page:
        """Send the request, and take the whole response."""
        url = urlsplit(self.path)
        self._asked, self._gone = False, asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": url.path,
            "query_string": url.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "server": ("testserver", 80),
            "client": ("127.0.0.1", 1),
        }
        await application(scope, self._receive, self._send)
        if self.leave_after is not None:
            gc.collect()
            for turn in range(500):  # a server's loop continues, and closes the abandoned generators
                await asyncio.sleep(0.01)
                if turn > 4 and len(asyncio.all_tasks()) == 1:
                    break
        cookies: dict[str, Morsel[str]] = {}
        for name, value in self.answered:
            if name == "set-cookie":
                cookies.update(SimpleCookie(value))
        headers = dict(self.answered)
        return Page(self.status, text_of(self.pieces, headers), headers, cookies)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answered = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
            return
        if message.get("body"):
            self.pieces.append(message["body"])
        if self.leave_after is not None and len(self.pieces) >= self.leave_after:
            self._gone.set()
            await asyncio.sleep(10)  # until the application has noticed
