"""Serve decorated views. If the middleware has not run, do its work. Keep the state for a streamed body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from flask import after_this_request, current_app, request
from werkzeug.wrappers import Response

from flask_replswitch.conf import configured, secrets_of
from replswitch.request.options import request_options
from replswitch.request.policy import MARKER_HEADER, RequestPolicy
from replswitch.request.wsgi import ask
from replswitch.state import Frame, Resumable, instruction, stack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replswitch import State
    from replswitch.scope import Scope

# The key in `app.extensions` for the policy of an application with decorated views but without ReplSwitch.
_POLICY: Final = "flask_replswitch.policy"

# The key in the WSGI environment for the scope of a request without the middleware.
_SCOPE: Final = "flask_replswitch.scope"


def instruction_for(wanted: State) -> Frame:
    """Return the frame for a call of a decorated function in a request. The caller puts the frame on the stack.

    If neither the middleware nor another decorated function has begun the scope of the request, begin the scope, and
    let Flask add the marker to the response.

    Args:
        wanted: the decorator's state. If this function begins the scope, this state replaces the option ``override``.

    Raises:
        ConfigurationError: the application's configuration is wrong.
    """
    running = stack()
    if running is not None and running.scope.is_request:
        return instruction(wanted)
    known: Scope | None = request.environ.get(_SCOPE)
    return _begin(wanted) if known is None else instruction(wanted, known)


def _begin(wanted: State) -> Frame:
    policy: RequestPolicy | None = current_app.extensions.get(_POLICY)
    if policy is None:
        policy = RequestPolicy(request_options(configured(current_app).requests), secrets_of(current_app))
        current_app.extensions[_POLICY] = policy
    cookies, header = request.headers.get("Cookie", ""), request.headers.get(MARKER_HEADER, "")
    frame = policy.begin(request.method, cookies, header, ask(policy, request.environ, wanted))
    request.environ[_SCOPE] = frame.scope

    @after_this_request
    def finish(response: Response) -> Response:
        policy.mark(response, frame.scope, request.method, https=lambda: request.is_secure)
        return response

    return frame


def kept(answer: Any, frame: Frame) -> Any:
    """Return the result of a view. The pieces of a streamed response then run in the view's state (S9).

    Args:
        answer: the return value of the view: anything from which Flask makes a response.
        frame: the view's instruction.
    """
    if isinstance(answer, tuple) and answer:  # a body with a status, headers or both
        return (kept(answer[0], frame), *answer[1:])
    if isinstance(answer, Iterator):
        return Pieces(answer, frame)
    if isinstance(answer, Response) and answer.is_streamed and not answer.direct_passthrough:
        answer.response = Pieces(answer.response, frame)
    return answer


class Pieces:
    """The pieces of a body. Each piece is produced in the view's state."""

    def __init__(self, pieces: Iterable[Any], frame: Frame) -> None:
        self._pieces = iter(pieces)
        self._body = pieces
        self._running = Resumable(frame)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._running:
            return next(self._pieces)

    def close(self) -> None:
        """Close the view's iterator, after the last piece or when the client has disconnected."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                with self._running:
                    close()
        finally:
            self._running.end()
