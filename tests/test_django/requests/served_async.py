"""An asynchronous project for a server process: a stream, a thread beside the request, and a consumer for HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

django.setup()
settings.ROOT_URLCONF = __name__
settings.REPLSWITCH = {"DEBUG_HEADER": True}

from channels.generic.http import AsyncHttpConsumer  # type: ignore[import-untyped]  # noqa: E402 - needs the settings
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]  # noqa: E402 - likewise
from tests.test_django.project.models import Message  # noqa: E402 - likewise
from tests.test_django.requests.board import shown  # noqa: E402 - likewise

from django_replswitch.asgi import HttpConsumerMiddleware  # noqa: E402 - likewise


async def board(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await sync_to_async(shown)())


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        yield ""
        await Message.objects.acreate(body=request.GET["n"])
        yield await sync_to_async(shown)()

    return StreamingHttpResponse(pieces())


async def threads(request: HttpRequest) -> HttpResponse:
    create = sync_to_async(Message.objects.create, thread_sensitive=False)
    await asyncio.gather(*[create(body=request.GET["n"]) for _ in range(2)])
    return HttpResponse(await sync_to_async(shown)())


class Consumer(AsyncHttpConsumer):  # type: ignore[misc]  # without types
    """Writes what the query string says."""

    async def handle(self, body: bytes) -> None:
        await Message.objects.acreate(body=self.scope["query_string"].decode().removeprefix("n="))
        await self.send_response(200, (await sync_to_async(shown)()).encode())


urlpatterns = [path("", board), path("stream", stream), path("threads", threads)]
consumer: Any = HttpConsumerMiddleware(Consumer.as_asgi())
rest: Any = get_asgi_application()
application = ProtocolTypeRouter(
    {"http": URLRouter([path("consumer", consumer), *(path(name, rest) for name in ("", "stream", "threads"))])}
)
