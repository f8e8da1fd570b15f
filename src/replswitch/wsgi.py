"""WSGI middleware: picks the side of a request, and marks the response of one that wrote. See PEP 3333."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from webob import Request
from webob.cookies import make_cookie, parse_cookie  # type: ignore[attr-defined]  # types-WebOb leaves it out

from replswitch.errors import ConfigurationError, ReplSwitchError
from replswitch.marker import MAX_LENGTH, Marker, MarkerNames, MarkerSigner
from replswitch.options import RequestOptionNames, Secret, request_options
from replswitch.policy import decide, needs_marker
from replswitch.scope import Scope
from replswitch.state import Resumable, instruction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from typing_extensions import Unpack

    from replswitch.options import RequestOptions
    from replswitch.policy import Decision
    from replswitch.state import Frame

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class ReplicationMiddleware:
    """Switches the databases of a WSGI application by the method of each request, and reads and writes markers.

    GET, HEAD, OPTIONS, TRACE and QUERY ask for a slave, every other method for the master (R1). A request that
    comes with a marker sees what its visitor has written. Put it outermost, so that error pages made by other
    middleware carry the marker too.

    Args:
        application: the WSGI application.
        secret: signs the markers; a string, or several with the newest first.
        options: see `replswitch.options.RequestOptions`.

    Raises:
        ConfigurationError: there is no secret, or an option is unknown or of the wrong kind.
    """

    def __init__(
        self,
        application: WSGIApplication,
        secret: Secret | None = None,
        **options: Unpack[RequestOptionNames],
    ) -> None:
        if not callable(application):
            raise ConfigurationError(
                f"ReplicationMiddleware wraps a WSGI application, and {application!r} cannot be called. Give the "
                "application itself: ReplicationMiddleware(application, secret=…)."
            )
        self.application = application
        self.options: RequestOptions = request_options(options)
        self.signer = MarkerSigner(secret)
        self.names = MarkerNames(self.options.cookie_name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request.

        Raises:
            ConfigurationError: the option ``override`` returned something else than a state or None.
        """
        options = self.options
        scope = Scope()
        scope.marker = self._marker(environ)
        scope.decision = decide(
            environ["REQUEST_METHOD"],
            marker=scope.marker,
            override=None if options.override is None else options.override(Request(environ)),
            enabled=options.enabled,
        )
        scope.master_only = scope.decision.final
        return _Response(self, environ, start_response, scope, instruction(scope.decision.state, scope)).run()

    def extra_headers(self, environ: WSGIEnvironment, status: str, scope: Scope) -> list[tuple[str, str]]:
        """Return what the response to a request needs besides its own headers: a marker, the debug header."""
        headers = []
        code = int(status[:3]) if status[:3].isdigit() else 0
        if self.options.enabled and needs_marker(
            environ["REQUEST_METHOD"],
            code,
            written=scope.written_at is not None,
            recorded=scope.recorded,
            unrecorded=scope.unrecorded,
        ):
            marker = Marker(time.time() if scope.written_at is None else scope.written_at)
            token = self.signer.write(marker if scope.marker is None else marker.merge(scope.marker))
            headers.append(("Set-Cookie", self._cookie(token, https=environ["wsgi.url_scheme"] == "https")))
        if self.options.debug_header:
            headers.append(("Replswitch", ", ".join(map(_header_value, _told(scope)))))
        return headers

    def _marker(self, environ: WSGIEnvironment) -> Marker | None:
        cookies = environ.get("HTTP_COOKIE", "")
        if self.options.cookie_name not in cookies or not self.options.enabled:
            return None
        wanted = {name.encode() for name in self.names.all}
        tokens = [
            value.decode("latin-1")
            for name, value in parse_cookie(cookies.encode("latin-1", "replace").decode("latin-1"))
            if name in wanted and len(value) <= MAX_LENGTH
        ]
        return self.signer.read(tokens, now=time.time(), max_age=self.options.cookie_max_age)

    def _cookie(self, token: str, *, https: bool) -> str:
        options = self.options
        secure = https if options.cookie_secure is None else options.cookie_secure
        return make_cookie(
            self.names.next(),
            token,
            max_age=math.ceil(options.cookie_max_age),
            path=options.cookie_path,
            domain=options.cookie_domain,
            # Browsers take SameSite=None with Secure only: RFC 6265bis, section 5.6.
            secure=secure or options.cookie_samesite == "None",
            httponly=True,
            samesite=options.cookie_samesite,
        )


class _Response:
    """One request in the middleware's hands, and the iterable that the server gets for a body made piece by piece.

    The headers wait for the first piece of the body that is not empty, because an application may commit up to then
    (M7); empty pieces before it are left out, as the server may be given none before the headers. The state holds
    only while the application runs (S9).
    """

    __slots__ = (
        "_body", "_environ", "_exc_info", "_headers", "_middleware", "_pieces", "_running", "_scope",
        "_start_response", "_status", "_write",
    )  # fmt: skip

    def __init__(
        self,
        middleware: ReplicationMiddleware,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        scope: Scope,
        frame: Frame,
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        self._start_response = start_response
        self._scope = scope
        self._running = Resumable(frame)
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._exc_info: ExcInfo | None = None
        self._write: Callable[[bytes], object] | None = None
        self._pieces: Iterator[bytes] | None = None

    def run(self) -> Iterable[bytes]:
        """Call the application, and return what the server gets to iterate over."""
        try:
            with self._running:
                self._body = self._middleware.application(self._environ, self.start_response)
            if not self._is_complete(self._body):
                return self
            if self._status is not None:
                self._send_headers()
        except BaseException:
            self._running.end()
            raise
        self._running.end()
        return self._body

    def _is_complete(self, body: Iterable[bytes]) -> bool:
        # Nothing of the application runs any more: the server may have the body as it is, so that it can see its
        # length, or hand the file to the kernel.
        wrapper = self._environ.get("wsgi.file_wrapper")
        return type(body) in (list, tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))

    # What the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Keep the status and the headers; the server hears of them with the first piece of the body."""
        if self._write is not None:
            # Too late for new headers: with exc_info the server raises it, without it is an error of the application.
            return self._start_response(status, headers, *((exc_info,) if exc_info else ()))
        if self._status is not None and exc_info is None:
            raise ReplSwitchError(
                "The application called start_response() a second time without exc_info, which PEP 3333 forbids."
            )
        self._status, self._headers, self._exc_info = status, headers, exc_info
        return self._write_piece

    def _write_piece(self, data: bytes) -> None:
        if self._write is None:
            self._send_headers()
        if self._write is not None:
            self._write(data)

    def _send_headers(self) -> None:
        if self._status is None:
            return  # the server knows best what to say to an application that never called start_response()
        extra = self._middleware.extra_headers(self._environ, self._status, self._scope)
        exc_info, self._exc_info = self._exc_info, None
        self._scope.answered = True
        self._write = self._start_response(self._status, [*self._headers, *extra], *((exc_info,) if exc_info else ()))

    # What the server calls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = b""
        try:
            with self._running:
                if self._pieces is None:
                    self._pieces = iter(self._body)
                while not piece:
                    piece = next(self._pieces)
                    if self._write is not None:
                        break
        except StopIteration:
            if self._write is None:
                self._send_headers()
            raise
        if self._write is None:
            self._send_headers()
        return piece

    def close(self) -> None:
        """End the request, when the server has done, or the client has gone away."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                with self._running:
                    close()
        finally:
            self._running.end()


def _told(scope: Scope) -> tuple[Decision, ...]:
    """Return the decisions to tell of: the servers that were chosen, or the request's own where none was."""
    return scope.decisions or (() if scope.decision is None else (scope.decision,))


def _header_value(decision: Decision) -> str:
    server = "" if decision.server is None else f"; server={quote(decision.server, safe='/:[]')}"
    return f"{decision.state}{server}; reason={decision.reason}"
