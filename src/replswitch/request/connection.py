"""The types of ASGI, and the headers that replswitch reads from a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
ConnectionScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASGIApplication = Callable[[Any, Any, Any], Awaitable[None]]
"""An application, called with a `ConnectionScope`, `Receive` and `Send`. Each framework has its own types for these."""

Headers = list[tuple[bytes, bytes]]

# The headers of a request that are read.
_READ: Final = frozenset({b"cookie", b"replswitch-marker", b"content-length", b"transfer-encoding"})


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str, bool]:
    """Return the cookies and the markers in the headers of a request, and whether it has a body."""
    cookies = markers = ""
    has_body = False
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"cookie":  # over HTTP/2, there may be several
            cookies = f"{cookies}; {value.decode('latin-1')}" if cookies else value.decode("latin-1")
        elif name == b"replswitch-marker":
            markers = f"{markers},{value.decode('latin-1')}"
        elif value != b"0":
            has_body = True
    return cookies, markers, has_body


def encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return headers as bytes, with names in lower case, as ASGI sends them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
