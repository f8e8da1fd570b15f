"""Shows the server of each query at the end of the page. The views do not know of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from django.db import connection
from django.template.loader import render_to_string

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


class Request(NamedTuple):
    """A request, and its queries as ``connection.queries`` has them: with ``db`` and ``server``."""

    method: str | None
    path: str
    queries: list[dict[str, Any]]


class QueriesMiddleware:
    """Put a list of the latest requests and their queries in front of ``</body>``."""

    latest: ClassVar[deque[Request]] = deque(maxlen=8)

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve one request."""
        response = self.get_response(request)
        # After the view: with DEBUG, Django drops the queries when the next request begins.
        self.latest.appendleft(Request(request.method, request.get_full_path(), connection.queries))
        if response.headers.get("Content-Type", "").startswith("text/html"):
            shown = render_to_string("shop_django/shown.html", {"requests": list(self.latest)})
            response.content = response.content.replace(b"</body>", shown.encode() + b"</body>")
        return response
