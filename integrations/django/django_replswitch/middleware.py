"""The middleware for ``MIDDLEWARE``; put it first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from django_replswitch.serving import asettle, begin, finish
from replswitch.state import push

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase


class ReplicationMiddleware:
    """Switches all databases by the method of each request, and reads and writes markers. Sync and async."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request; asynchronously where what is inside is asynchronous."""
        if self._is_async:
            return self._serve(request)
        frame = begin(request)
        with push(frame):
            return finish(request, self.get_response(request), frame)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        frame = begin(request)
        with push(frame):
            response = await self.get_response(request)
            await asettle(frame.scope)
        return finish(request, response, frame)
