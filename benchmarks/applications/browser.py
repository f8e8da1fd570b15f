"""A visitor's browser: it keeps cookies, follows redirects, and remembers each answer."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The header with the error of an application, from `serving`.
ERROR: Final = "Error-Seen"

#: The debug header of replswitch.
DECIDED: Final = "Replswitch"

#: The names of the marker cookies.
MARKER: Final = "just_updated"

REDIRECTS: Final = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}

#: Redirects that are followed from one click.
HOPS: Final = 8

#: Seconds that a visitor waits for an answer.
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        method: of the request.
        path: of the request.
        status: 0 if there was none.
        text: the body.
        location: where it redirects to.
        error: the error of the application, or the reason for a missing response.
        decided: replswitch's own word on where the request went.
    """

    method: str
    path: str
    status: int
    text: str = ""
    location: str = ""
    error: str = ""
    decided: str = ""

    @property
    def redirects(self) -> bool:
        """Whether it leads elsewhere."""
        return self.status in REDIRECTS

    @property
    def good(self) -> bool:
        """Whether it is no error."""
        return 0 < self.status < HTTPStatus.BAD_REQUEST

    def __str__(self) -> str:
        told = f"{self.method} {self.path} {self.status}"
        return " ".join(filter(None, [told, self.error, f"[{self.decided}]" if self.decided else ""]))


class _AsItComes(urllib.request.HTTPErrorProcessor):
    """Hands on every answer: redirects are followed one by one, and errors are counted."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response


class Browser:
    """See above.

    Args:
        base: the address of the application.
        keeps_marker: False throws replswitch's marker away, so that own writes are missed.
    """

    def __init__(self, base: str, *, keeps_marker: bool = True) -> None:
        self._base = base
        self._keeps_marker = keeps_marker
        self._at = ""
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies), _AsItComes()
        )

    def open(self, path: str, form: Sequence[tuple[str, str]] | None = None) -> list[Answer]:
        """Ask for a page, or send a form, and follow redirects; return all answers."""
        answers = [self._ask(path, form)]
        while answers[-1].redirects and len(answers) <= HOPS:
            before = answers[-1]
            same = before.status in {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}
            answers.append(self._ask(urljoin(before.path, before.location), form if same else None))
        return answers

    def _ask(self, url: str, form: Sequence[tuple[str, str]] | None) -> Answer:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        method = "GET" if form is None else "POST"
        request = urllib.request.Request(
            self._base + path, data=None if form is None else urlencode(form).encode(), method=method
        )
        if self._at:
            request.add_header("Referer", self._base + self._at)
        try:
            with self._opener.open(request, timeout=PATIENCE) as response:
                text = response.read().decode("utf-8", "replace")
                found = {name: response.headers.get(name, "") for name in ("Location", ERROR, DECIDED)}
                status = response.status
        except OSError as error:
            return Answer(method, path, 0, error=f"{type(error).__name__}: {error}")
        if not self._keeps_marker:
            self._throw_marker_away()
        self._at = path
        return Answer(method, path, status, text, found["Location"], found[ERROR], found[DECIDED])

    def _throw_marker_away(self) -> None:
        for cookie in list(self._cookies):
            if cookie.name.startswith(MARKER):
                self._cookies.clear(cookie.domain, cookie.path, cookie.name)
