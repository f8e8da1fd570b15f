"""The sides of the benchmark of the ASGI middleware: each answers the same request, and adds what it should."""

from __future__ import annotations

import asyncio
from typing import Any

from cost import asgi

from replswitch.asgi import ReplicationMiddleware


def answer(application: Any) -> list[Any]:
    """Serve one request of the benchmark, and return the messages."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(asgi.BROWSER.copy(), asgi.receive, send))
    return sent


def test_the_middleware_serves_a_plain_get_in_slave_state_and_adds_no_header() -> None:
    wrapped = ReplicationMiddleware(asgi.switched, secret="secret")
    assert answer(wrapped) == [asgi.START, asgi.BODY]
    assert answer(asgi.switched) == [asgi.START, asgi.END]  # without the middleware, the state is master


def test_the_application_with_header_adds_one_header_and_changes_no_message_of_the_application_inside() -> None:
    (start, body), before = answer(asgi.WithHeader(asgi.whole)), list(asgi.HEADERS)
    assert len(start["headers"]) == len(before) + 1
    assert (asgi.START["headers"], body) == (before, asgi.BODY)
