"""WSGI middleware: choose the state of a request, and add a marker to its response if it wrote. See PEP 3333."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http.cookies import Morsel
from typing import TYPE_CHECKING, Any, Final, Unpack

from webob import Request

from replswitch.errors import ConfigurationError, ReplSwitchError
from replswitch.request.options import RequestOptionNames, Secret, request_options
from replswitch.request.policy import RequestPolicy
from replswitch.request.replay import Replay, committed_on_close, repeats
from replswitch.state import set_stack, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from replswitch.scope import Scope
    from replswitch.state import Frame

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

# The values of the header Content-Length for a request without a body.
_NO_BODY: Final = frozenset({"", "0"})

# Marks the end of a body.
_OVER: Final[Any] = object()


class ReplicationMiddleware:
    """Switches the databases of a WSGI application by the method of each request, and reads and writes markers.

    GET, HEAD, OPTIONS, TRACE and QUERY ask for a slave, every other method for the master (R1). A request with a
    marker sees what its visitor has written. Make it the outermost middleware, so that error pages made by other
    middleware carry the marker too.

    Args:
        application: the WSGI application.
        secret: the key that signs the markers; a string, or several with the newest first.
        options: see `replswitch.request.options.RequestOptions`.

    Raises:
        ConfigurationError: there is no secret, or an option is unknown or of the wrong kind.
    """

    def __init__(
        self, application: WSGIApplication, secret: Secret | None = None, **options: Unpack[RequestOptionNames]
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
            ConfigurationError: the option ``override`` returned a value that is neither a state nor None.
        """
        policy = self.policy
        tokens = self.tokens(environ)
        override = None if policy.options.override is None else self._override(environ)
        method, https = environ["REQUEST_METHOD"], environ.get("wsgi.url_scheme") == "https"
        has_body = environ.get("CONTENT_LENGTH", "") not in _NO_BODY or "HTTP_TRANSFER_ENCODING" in environ
        frame = policy.begin(method, tokens, override, path=environ.get("PATH_INFO", ""), has_body=has_body)
        scope = frame.scope
        as_it_came = None if scope.safe_request is None else environ.copy()
        return _Response(self, environ, start_response, scope, method, https, as_it_came, frame).run()

    def tokens(self, environ: WSGIEnvironment) -> Sequence[str]:
        """Return the possible markers in a request."""
        cookies, header = environ.get("HTTP_COOKIE"), environ.get("HTTP_REPLSWITCH_MARKER")
        return self.policy.tokens(cookies or "", header or "") if cookies or header else ()

    def extra_headers(self, method: str, status: str, scope: Scope, *, https: bool) -> list[tuple[str, str]]:
        """Return the headers to add to a response: a marker, the debug header."""
        cookie, headers = self.policy.additions(scope, method, status[:3], https=lambda: https)
        if cookie is not None:
            name, token, attributes = cookie
            morsel: Morsel[str] = Morsel()
            morsel.set(name, token, token)
            morsel.update({key.replace("_", "-"): value or "" for key, value in attributes.items()})
            headers.append(("Set-Cookie", morsel.OutputString()))
        return headers

    def _override(self, environ: WSGIEnvironment) -> object:
        options = self.policy.options
        if options.override is None or not options.enabled:
            return None
        request = Request(environ)
        wanted = options.override(request)
        if request.is_body_seekable:  # the function has read the body, and WebOb has kept it
            environ["wsgi.input"].seek(0)
        return wanted


@dataclass(slots=True, eq=False, repr=False)
class _Response:
    """One request in the middleware; also the iterable that the server gets for a streamed body.

    The headers are sent with the first piece of the body that is not empty, because an application may commit until
    then (M7). Empty pieces before it are left out, because the server must not get a piece before the headers. The
    state holds only while the application runs (S9).
    """

    middleware: ReplicationMiddleware
    environ: WSGIEnvironment
    server: StartResponse
    scope: Scope
    # The values from the server: an application may change its environ.
    method: str
    https: bool
    as_it_came: WSGIEnvironment | None  # a copy of the environ, for a second try
    top: Frame | None  # the stack as the application left it; set by hand, which is fastest
    status: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    exc_info: ExcInfo | None = None
    write: Callable[[bytes], object] | None = None
    sent: bool = False
    body: Iterable[bytes] = ()
    pieces: Iterator[bytes] | None = None
    closed: bool = False

    def run(self) -> Iterable[bytes]:
        """Call the application, and return the iterable for the server."""
        file_wrapper = self.environ.get("wsgi.file_wrapper")
        try:
            self._call_application()
            body = self.body
            if type(body) not in (list, tuple) and not (
                isinstance(file_wrapper, type) and isinstance(body, file_wrapper)
            ):
                return self
            # No code of the application runs any more. Return the body itself, so that the server can see its length,
            # or pass the file to the kernel.
            if not self.sent:
                self._send_headers()
        except BaseException:
            self.close()
            raise
        self.closed = True
        self.scope.end()
        return body

    def _call_application(self) -> None:
        is_replay = False
        outer = stack()
        set_stack(self.top)
        try:
            self.body = self.middleware.application(self.environ, self.start_response)
        except (Replay, BaseExceptionGroup, Exception) as raised:
            if not repeats(raised, may_run_again=self.scope.may_run_again()):
                raise
            is_replay = True
        finally:
            self.top = stack()
            set_stack(outer)
        request = self.scope.safe_request
        if request is not None and request.refusal is not None and self._begins_again(is_replay=is_replay):
            self._call_application()

    def _begins_again(self, *, is_replay: bool) -> bool:
        """Prepare a second try if a write in the first one could not be moved (R5); else return False.

        Args:
            is_replay: the first try has ended with a `Replay`. If not, the application may have caught it.

        Raises:
            SlaveWriteError: closing the first response has committed something.
        """
        first = self.scope
        request = first.safe_request
        if request is None or request.refusal is None or not (is_replay or first.may_run_again()):
            return False
        request.runs_again = True
        with suppress(Exception):  # this response is discarded
            self._close_body()
        if first.has_committed():
            raise committed_on_close(request.refusal)
        first.end()
        if self.as_it_came is not None:
            self.environ.clear()
            self.environ.update(self.as_it_came)
        middleware = self.middleware
        self.top = middleware.policy.begin_again(first, self.method, middleware.tokens(self.environ))
        self.scope = self.top.scope
        self.status, self.headers, self.exc_info, self.pieces = None, (), None, None
        return True

    # What the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Store the status and the headers; they are sent with the first piece of the body."""
        if self.sent:
            # Too late for new headers: the server raises the error in exc_info. Without exc_info, the call is an error.
            return self.server(status, headers, *((exc_info,) if exc_info else ()))
        if self.status is not None and exc_info is None:
            raise ReplSwitchError(
                "The application called start_response() a second time without exc_info, which PEP 3333 forbids."
            )
        self.status, self.headers, self.exc_info = status, headers, exc_info
        return self._write_piece

    def _write_piece(self, data: bytes) -> None:
        if not self.sent:
            self._send_headers()
        if self.write is not None:
            self.write(data)

    def _send_headers(self) -> None:
        if self.status is None:
            return  # the server reports that the application never called start_response()
        scope, middleware, headers = self.scope, self.middleware, [*self.headers]
        if scope.wrote is not None or not scope.is_safe or scope.pending or middleware.policy.options.debug_header:
            headers += middleware.extra_headers(self.method, self.status, scope, https=self.https)
        exc_info, self.exc_info = self.exc_info, None
        scope.answered = self.sent = True
        server, status = self.server, self.status
        self.write = server(status, headers, exc_info) if exc_info else server(status, headers)

    # What the server calls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        is_replay = False
        outer = stack()
        set_stack(self.top)
        try:
            if self.pieces is None:
                self.pieces = iter(self.body)
            piece = next(self.pieces, _OVER)
            while not piece and not self.sent:
                piece = next(self.pieces, _OVER)
        except (Replay, BaseExceptionGroup, Exception) as raised:
            if not repeats(raised, may_run_again=self.scope.may_run_again()):
                raise
            is_replay = True
        finally:
            self.top = stack()
            set_stack(outer)
        if not self.sent:
            if self._begins_again(is_replay=is_replay):
                self._call_application()
                return next(self)
            self._send_headers()
        if piece is _OVER:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the request: the server has finished, or the client has disconnected."""
        if self.closed:
            return
        self.closed = True
        if self.scope.safe_request is not None:
            self.scope.safe_request.is_repeatable = False  # the server no longer accepts another response
        try:
            self._close_body()
        finally:
            self.scope.end()

    def _close_body(self) -> None:
        body, self.body = self.body, ()
        outer = stack()
        set_stack(self.top)
        try:
            if hasattr(body, "close"):
                body.close()
        finally:
            set_stack(outer)

    def __del__(self) -> None:
        # For servers that do not call close(): Python would close a generator in the state of the server's code.
        self.close()
