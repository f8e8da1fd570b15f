"""WSGI middleware that chooses a request's state, and adds a marker to the response after a write. See PEP 3333."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Unpack

from webob import Request

from replswitch.errors import ConfigurationError, ReplSwitchError
from replswitch.request.options import RequestOptionNames, Secret, request_options
from replswitch.request.policy import RequestPolicy
from replswitch.request.replay import Replay, committed_on_close, repeats
from replswitch.state import set_stack, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from replswitch.decision import State
    from replswitch.scope import Scope
    from replswitch.state import Frame

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

# The values of the header Content-Length for a request without a body.
_NO_BODY: Final = frozenset({"", "0"})

# The types of a body that is made before the application returns.
_WHOLE: Final[frozenset[type]] = frozenset({list, tuple})

# Marks the end of a body.
_OVER: Final[Any] = object()


class ReplicationMiddleware:
    """Switches the databases of a WSGI application by the method of each request, and reads and writes markers.

    GET, HEAD, OPTIONS, TRACE and QUERY ask for a slave, every other method for the master (R1). A request with a
    marker sees what its visitor has written. Make this class the outermost middleware, so that error pages made by
    other middleware carry the marker too.

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
                f"ReplicationMiddleware needs a WSGI application, but {application!r} cannot be called. Give the "
                "application itself: ReplicationMiddleware(application, secret=…)."
            )
        self.application = application
        self.policy = RequestPolicy(request_options(options), secret)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request.

        Raises:
            ConfigurationError: a function in the options returned a value of the wrong kind.
        """
        policy = self.policy
        cookies, header = environ.get("HTTP_COOKIE", ""), environ.get("HTTP_REPLSWITCH_MARKER", "")
        override = ask(policy, environ) if policy.asks else None
        path = environ.get("PATH_INFO", "")
        if not path.isascii():  # PEP 3333: its characters stand for the bytes of UTF-8
            path = path.encode("latin-1", "replace").decode(errors="replace")
        has_body = environ.get("CONTENT_LENGTH", "") not in _NO_BODY or "HTTP_TRANSFER_ENCODING" in environ
        response = _Response()
        response.middleware, response.server = self, start_response
        response.environ, response.received = environ, environ.copy()
        response.top = policy.begin(environ["REQUEST_METHOD"], cookies, header, override, path, has_body)
        response.scope = response.top.scope
        response.status = response.write = None
        response.body, response.sent = (), False
        try:
            response.call_application()
            body = response.body
            if type(body) not in _WHOLE and not response.is_file(body):
                return _Stream(response)
            # No code of the application runs any more. Return the body itself, so that the server can see its length,
            # or pass the file to the kernel.
            if not response.sent:
                response.send_headers()
        except BaseException:
            response.close()
            raise
        response.scope.end()
        return body


def ask(policy: RequestPolicy, environ: WSGIEnvironment, wanted: State | None = None) -> object:
    """Call the functions in the options with a request made from the environ; see `RequestPolicy.override`."""
    if not policy.asks:
        return wanted
    request = Request(environ)
    answers = policy.override(request, wanted)
    if request.is_body_seekable:  # a function has read the body, and WebOb has kept it
        environ["wsgi.input"].seek(0)
    return answers


class _Response:
    """One request in the middleware.

    The headers are sent with the first piece of the body that is not empty, because an application may commit until
    then (M7). The state is in force only while the application runs (S9).

    The middleware makes an object for each request. For speed, it sets the slots itself, without ``__init__``.

    Attributes:
        environ: the environ from the server. The application may change it.
        received: a copy of the environ as the server made it.
        server: the server's ``start_response()``.
        top: the stack of the application: at first the instruction of the request, then as the application left it.
    """

    __slots__ = (
        "body", "environ", "exc_info", "headers", "middleware", "received", "scope", "sent", "server", "status", "top",
        "write",
    )  # fmt: skip

    middleware: ReplicationMiddleware
    environ: WSGIEnvironment
    received: WSGIEnvironment
    server: StartResponse
    top: Frame | None
    scope: Scope
    status: str | None
    headers: list[tuple[str, str]]
    exc_info: ExcInfo | None
    write: Callable[[bytes], object] | None
    body: Iterable[bytes]
    sent: bool

    def is_file(self, body: Iterable[bytes]) -> bool:
        """Return whether a body is a file that the application has wrapped for the server."""
        wrapper = self.received.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(body, wrapper)

    def call_application(self) -> None:
        """Call the application, and once more if a write in its first try could not be moved (R5)."""
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
        if request is not None and request.refusal is not None and self.begins_again(is_replay=is_replay):
            self.call_application()

    def begins_again(self, *, is_replay: bool) -> bool:
        """If a write in the first try could not be moved, prepare a second try and return True (R5); else return False.

        Args:
            is_replay: the first try has ended with a `Replay`. If False, the application may have caught the `Replay`.

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
        received = self.received
        self.environ.clear()
        self.environ.update(received)
        cookies, header = received.get("HTTP_COOKIE", ""), received.get("HTTP_REPLSWITCH_MARKER", "")
        self.top = self.middleware.policy.begin_again(first, received["REQUEST_METHOD"], cookies, header)
        self.scope = self.top.scope
        self.status = self.exc_info = None
        return True

    # What the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Store the status and the headers; they are sent with the first piece of the body."""
        if self.sent:
            # It is too late for new headers. The server raises the error in exc_info; a call without it is an error.
            return self.server(status, headers, *((exc_info,) if exc_info else ()))
        if self.status is not None and exc_info is None:
            raise ReplSwitchError(
                "The application called start_response() a second time without exc_info, which PEP 3333 forbids."
            )
        self.status, self.headers, self.exc_info = status, headers, exc_info
        return self._write_piece

    def _write_piece(self, data: bytes) -> None:
        if not self.sent:
            self.send_headers()
        if self.write is not None:
            self.write(data)

    def send_headers(self) -> None:
        """Send the status and the headers, with a marker if the request wrote."""
        if self.status is None:
            return  # the server reports that the application never called start_response()
        scope, headers, policy = self.scope, self.headers, self.middleware.policy
        if not policy.adds_nothing(scope):
            method, is_https = self.received["REQUEST_METHOD"], self.received.get("wsgi.url_scheme") == "https"
            extra = policy.extra_headers(scope, method, self.status[:3], is_https=is_https)
            headers = [*headers, *extra]
        scope.answered = self.sent = True
        if self.exc_info is None:
            self.write = self.server(self.status, headers)
        else:
            exc_info, self.exc_info = self.exc_info, None
            self.write = self.server(self.status, headers, exc_info)

    def close(self) -> None:
        """End the request, after the server has sent the body or the client has disconnected."""
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


class _Stream:
    """The iterable that the server gets for a body that the application makes piece by piece.

    Empty pieces at the beginning are left out, because the server must not get a piece before the headers.
    """

    def __init__(self, response: _Response) -> None:
        self._response = response
        self._pieces: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        response, is_replay = self._response, False
        outer = stack()
        set_stack(response.top)
        try:
            if self._pieces is None:
                self._pieces = iter(response.body)
            piece = next(self._pieces, _OVER)
            while not piece and not response.sent:
                piece = next(self._pieces, _OVER)
        except (Replay, BaseExceptionGroup, Exception) as raised:
            if not repeats(raised, may_run_again=response.scope.may_run_again()):
                raise
            is_replay = True
        finally:
            response.top = stack()
            set_stack(outer)
        if not response.sent:
            if response.begins_again(is_replay=is_replay):
                self._pieces = None
                response.call_application()
                return next(self)
            response.send_headers()
        if piece is _OVER:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the request. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._response.close()

    def __del__(self) -> None:
        # Some servers do not call close(). Python would then close a generator in the state of the server's code.
        self.close()
