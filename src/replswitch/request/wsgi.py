"""WSGI middleware: picks the side of a request, and marks the response of one that wrote. See PEP 3333."""

from __future__ import annotations

from http.cookies import Morsel
from typing import TYPE_CHECKING, Unpack

from webob import Request

from replswitch.errors import ConfigurationError, ReplSwitchError
from replswitch.request.options import RequestOptionNames, Secret, request_options
from replswitch.request.policy import DEBUG_HEADER, MARKER_HEADER, MarkerCookie, RequestPolicy
from replswitch.state import get_stack, set_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from replswitch.request.options import RequestOptions
    from replswitch.scope import Scope
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
        options: see `replswitch.request.options.RequestOptions`.

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
        self.policy = RequestPolicy(request_options(options), secret)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request.

        Raises:
            ConfigurationError: the option ``override`` returned something else than a state or None.
        """
        policy, around = self.policy, get_stack()
        cookies, header = environ.get("HTTP_COOKIE"), environ.get("HTTP_REPLSWITCH_MARKER")
        tokens = policy.tokens(cookies or "", header or "") if cookies or header else ()
        override = None if policy.options.override is None else self._override(environ)
        within = None if around is None or not around.scope.is_request else around.scope
        frame = policy.begin(environ["REQUEST_METHOD"], tokens, override, within=within)
        return _Response(self, environ, start_response, frame, within).run()

    def extra_headers(self, method: str, status: str, scope: Scope, *, https: bool) -> list[tuple[str, str]]:
        """Return what the response to a request needs besides its own headers: a marker, the debug header."""
        options = self.policy.options
        if scope.wrote is None and scope.is_safe and not scope.pending and not options.debug_header:
            return []  # most responses
        scope.settle()
        headers = []
        cookie = self.policy.cookie(scope, method, status[:3], https=https)
        if cookie is not None:
            headers.append(("Set-Cookie", _set_cookie(cookie, options)))
            if options.header:
                headers.append((MARKER_HEADER, cookie.value))
        if options.debug_header:
            headers.append((DEBUG_HEADER, self.policy.debug_header(scope)))
        return headers

    def _override(self, environ: WSGIEnvironment) -> object:
        override = self.policy.options.override
        if override is None or not self.policy.options.enabled:
            return None  # asked before, too: most have none
        request = Request(environ)
        wanted = override(request)
        if request.is_body_seekable:  # it has looked into the body, which WebOb then keeps for the application
            environ["wsgi.input"].seek(0)
        return wanted


def _set_cookie(cookie: MarkerCookie, options: RequestOptions) -> str:
    morsel: Morsel[str] = Morsel()
    morsel.set(cookie.name, cookie.value, cookie.value)
    morsel["max-age"] = cookie.max_age
    morsel["path"] = options.cookie_path
    morsel["domain"] = options.cookie_domain or ""
    morsel["secure"] = cookie.secure
    morsel["httponly"] = True
    morsel["samesite"] = options.cookie_samesite or ""
    return morsel.OutputString()


class _Response:
    """One request in the middleware's hands, and the iterable that the server gets for a body made piece by piece.

    The headers wait for the first piece of the body that is not empty, because an application may commit up to then
    (M7); empty pieces before it are left out, as the server may be given none before the headers. The state holds
    only while the application runs (S9).
    """

    __slots__ = (
        "_body", "_closed", "_environ", "_exc_info", "_headers", "_https", "_method", "_middleware", "_pieces",
        "_scope", "_sent", "_start_response", "_status", "_top", "_within", "_write",
    )  # fmt: skip

    def __init__(
        self,
        middleware: ReplicationMiddleware,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        frame: Frame,
        within: Scope | None,
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        # As the server gave them: an application may change its environ.
        self._method: str = environ["REQUEST_METHOD"]
        self._https = environ.get("wsgi.url_scheme") == "https"
        self._start_response = start_response
        self._scope = frame.scope
        self._within = within
        self._top: Frame | None = frame  # the stack as the application left it; entered by hand, which costs least
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._exc_info: ExcInfo | None = None
        self._write: Callable[[bytes], object] | None = None
        self._sent = False
        self._body: Iterable[bytes] = ()
        self._closed = False
        self._pieces: Iterator[bytes] | None = None

    def run(self) -> Iterable[bytes]:
        """Call the application, and return what the server gets to iterate over."""
        file_wrapper = self._environ.get("wsgi.file_wrapper")
        try:
            outer = get_stack()
            set_stack(self._top)
            try:
                body = self._body = self._middleware.application(self._environ, self.start_response)
            finally:
                self._top = get_stack()
                set_stack(outer)
            if type(body) not in (list, tuple) and not (
                isinstance(file_wrapper, type) and isinstance(body, file_wrapper)
            ):
                return self
            # Nothing of the application runs any more: the server may have the body as it is, so that it can see
            # its length, or hand the file to the kernel.
            if not self._sent:
                self._send_headers()
        except BaseException:
            self.close()
            raise
        self._closed = True
        if self._within is not None:
            self._within.absorb(self._scope)
        self._scope.end()
        return body

    # What the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Keep the status and the headers; the server hears of them with the first piece of the body."""
        if self._sent:
            # Too late for new headers: with exc_info the server raises it, without it is an error of the application.
            return self._start_response(status, headers, *((exc_info,) if exc_info else ()))
        if self._status is not None and exc_info is None:
            raise ReplSwitchError(
                "The application called start_response() a second time without exc_info, which PEP 3333 forbids."
            )
        self._status, self._headers, self._exc_info = status, headers, exc_info
        return self._write_piece

    def _write_piece(self, data: bytes) -> None:
        if not self._sent:
            self._send_headers()
        if self._write is not None:
            self._write(data)

    def _send_headers(self) -> None:
        if self._status is None:
            return  # the server knows best what to say to an application that never called start_response()
        extra = self._middleware.extra_headers(self._method, self._status, self._scope, https=self._https)
        if self._within is not None:  # before its own headers go out
            self._within.absorb(self._scope)
        headers = [*self._headers, *extra]
        exc_info, self._exc_info = self._exc_info, None
        self._scope.answered = self._sent = True
        if exc_info:
            self._write = self._start_response(self._status, headers, exc_info)
        else:
            self._write = self._start_response(self._status, headers)

    # What the server calls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        is_over = False
        outer = get_stack()
        set_stack(self._top)
        try:
            if self._pieces is None:
                self._pieces = iter(self._body)
            piece = next(self._pieces)
            while not piece and not self._sent:
                piece = next(self._pieces)
        except StopIteration:
            is_over, piece = True, b""
        finally:
            self._top = get_stack()
            set_stack(outer)
        if not self._sent:
            self._send_headers()
        if is_over:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the request, when the server has done, or the client has gone away."""
        if self._closed:
            return
        self._closed = True
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                outer = get_stack()
                set_stack(self._top)
                try:
                    close()
                finally:
                    self._top = get_stack()
                    set_stack(outer)
        finally:
            self._end()

    def _end(self) -> None:
        if self._within is not None:
            self._within.absorb(self._scope)
        self._scope.end()

    def __del__(self) -> None:
        # A server that forgot to close: a generator that Python closes by itself would wake up in the server's state.
        if not self._closed:
            self.close()
