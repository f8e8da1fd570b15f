"""Decide at the start of a request and set its marker at the end, in the same way for every framework."""

from __future__ import annotations

import logging
import math
import time
from http.cookies import Morsel
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from replswitch.decision import SLAVE
from replswitch.request.again import REPEATABLE, RepeatingPolicy
from replswitch.request.decide import SAFE_METHODS, decide, may_have_written
from replswitch.request.functions import Answers, Functions
from replswitch.request.marker import Marker, MarkerNames, MarkerSigner, checked_secrets, marker_tokens
from replswitch.request.rollout import TICKET_AGE, Rollout
from replswitch.scope import Scope
from replswitch.state import Frame, instruction, stack
from replswitch.telemetry.requests import request_log, show_request
from replswitch.telemetry.running import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decision import Decision, State
    from replswitch.request.options import RequestOptions, Secret

Cookie = tuple[str, str, dict[str, Any]]
"""A cookie: its name; its value, which consists of letters, digits and ``-_.``; and its attributes, named like the
parameters of ``set_cookie()`` on the responses of Django and Werkzeug."""

logger = logging.getLogger(__name__)

# The method of a websocket's handshake over HTTP/2 (RFC 8441). It is not a safe method.
_HANDSHAKE: Final = "CONNECT"

#: The header of requests and responses that carries the marker for clients without cookies (the option ``header``).
MARKER_HEADER = "Replswitch-Marker"

#: Writes in the same quarter of `position_max_age` share the date of the latest of them, so that markers stay short.
PERIODS: Final = 4

#: The response header that contains the decisions (the option ``debug_header``).
DEBUG_HEADER = "Replswitch"


class RequestPolicy(RepeatingPolicy):
    """Begins and ends requests. An application has one policy; its threads share it.

    Args:
        options: how requests are switched and marked.
        secret: the key that signs the markers; a string, or several with the newest first.

    In the methods, ``scope`` is the scope of the request, and ``method`` its HTTP method.

    Attributes:
        cookie_names: the names that the cookie of a marker may have.
        rollout: decides which visitors read from slaves.
        asks: True if the method `override` has a function to call for each request, because an option is a function.

    Raises:
        ConfigurationError: there is no secret.
    """

    def __init__(self, options: RequestOptions, secret: Secret) -> None:
        super().__init__()
        self.options = options
        self._ages = {"max_age": options.cookie_max_age, "position_max_age": options.position_max_age}
        secrets = checked_secrets(secret)
        self._signer = MarkerSigner(secrets)
        self._names = MarkerNames(options.cookie_name)
        self.cookie_names = frozenset(self._names.all)
        self.rollout = Rollout(options, secrets)
        self._functions = Functions(options)
        # These are computed once, to save time in each request.
        self._is_on, share = options.enabled is not False, options.rollout
        self._replays = options.replay and self._is_on
        self._varies = self._is_on and (self._functions.are_given or share != 1)
        self.asks = self._is_on and (self._functions.are_given or options.override is not None)
        self._adds_always = options.debug_header or (self._is_on and (callable(share) or 0 < share < 1))

    def override(self, request: Any, wanted: State | None = None) -> object:
        """Call the functions in the options ``override``, ``enabled`` and ``rollout`` with a request of the framework.

        Args:
            request: the request.
            wanted: a state that replaces the result of ``override``; then ``override`` is not called.

        Returns:
            the results, for `begin`; ``wanted`` if no option is a function.
        """
        override = self.options.override
        if not self.asks:
            return wanted
        if self._varies:
            return self._functions.answers(request, wanted, override)
        return wanted if wanted is not None or override is None else override(request)

    def begin(
        self,
        method: str,
        cookies: str,
        header: str = "",
        override: object = None,
        path: str | None = None,
        has_body: bool = False,
    ) -> Frame:
        """Begin a request and decide its state.

        If the request is made inside another request or a job in the same process, each sees what the other writes.
        An outer request or job that has ended is ignored, because a server may run the next request in its context.

        Args:
            method: the HTTP method.
            cookies: the header ``Cookie``.
            header: the header `MARKER_HEADER`.
            override: the result of the method `override`.
            path: the path of the request, if the binding can run it again (R5); else None.
            has_body: the request has a body, which can be read only once.

        Returns:
            the instruction to put in force while the request runs; its scope is the scope of the request.

        Raises:
            ConfigurationError: ``override`` is neither a state nor None.
        """
        options, around, is_on = self.options, stack(), self._is_on
        within = None if around is None else _enclosing(around.scope)
        # Most requests have no marker, so there is nothing to parse.
        is_plain = within is None and not header and options.cookie_name not in cookies
        scope = Scope() if is_plain else self._scope(cookies, header, within)
        # The arguments are positional, because this runs for each request, and keyword arguments are slower.
        if self._varies:
            override, is_on, share = self._answers(override)
            if scope.held_back is None or not share:  # else the enclosing request has decided
                scope.held_back, scope.ticket = self.rollout.decide(share, cookies, header)
        decision = decide(method, scope.marker, override, is_on)
        scope.decision, scope.master_only = decision, decision.final
        if watching.on or request_log.isEnabledFor(logging.DEBUG):
            show_request(scope, method, path)
        if method not in SAFE_METHODS:
            scope.wait_for_writes()
            return instruction(decision.state, scope)
        scope.is_safe = True
        if path is not None and self._replays and is_on:
            scope.safe_request = self._try(path, not has_body and method in REPEATABLE)
            if self.endpoints.known:
                self.reach(scope, path)
        return instruction(decision.state, scope)

    def begin_socket(self, cookies: str, header: str = "", override: object = None) -> Frame:
        """Begin a websocket, which is in master state unless ``override`` says otherwise; see `begin`."""
        frame = self.begin(_HANDSHAKE, cookies, header, override)
        if _wanted(override) == SLAVE:  # a marker without positions expires while the socket is open
            frame.state = SLAVE
        return frame

    def renew(self, scope: Scope, override: object = None, request: Any = None) -> None:
        """Begin the next message of a websocket like a request of its own; see `replswitch.scope.Scope.renew`.

        Args:
            scope: the scope of the websocket.
            override: the result of the method `override` for the handshake. It applies to all messages, except that
                ``enabled`` is looked up again.
            request: the request of the handshake.
        """
        scope.renew(**self._ages)
        is_on = self._functions.is_enabled(request) if self._varies else self._is_on
        scope.decision = decision = decide(_HANDSHAKE, scope.marker, _wanted(override), is_on)
        scope.master_only = decision.final

    def _scope(self, cookies: str, header: str, within: Scope | None) -> Scope:
        """Make a scope that must see what the request's markers ask for, and what the enclosing request wrote."""
        scope, marker = Scope(), None
        scope.within = within
        if within is not None:
            scope.held_back = within.held_back
        if self._is_on and (tokens := self._tokens(cookies, header)):
            marker = self._signer.read(tokens, now=time.time(), **self._ages)
        known = within.all_written() if within is not None and self._is_on else None
        if known is not None and (known := known.holding(time.time(), **self._ages)) is not None:
            marker = known if marker is None else known.merge(marker)
        if marker is not None:
            scope.adopt_marker(marker, self.options.cookie_max_age)
        return scope

    def _answers(self, override: object) -> Answers:
        # A binding that has not called `override` has no request for the functions.
        return override if isinstance(override, Answers) else self._functions.answers(None, override)

    def _tokens(self, cookies: str, header: str) -> list[str]:
        """Return the possible markers in a request, just as the client sent them.

        The header `MARKER_HEADER` is only used with the option ``header``. In it, commas separate several markers.
        """
        found = marker_tokens(cookies, self.cookie_names)
        if header and self.options.header:
            found += map(str.strip, header.split(","))
        return found

    def cookie(self, scope: Scope, method: str, status: int | str, *, https: Callable[[], bool]) -> Cookie | None:
        """Return the cookie with the marker that the response must carry; None if no new marker is needed (M6).

        Args:
            scope: the scope of the request, without pending writes.
            method: the HTTP method of the request.
            status: the response's status code; a value that is not a number is treated as no redirect.
            https: returns whether the request came over https.
        """
        options, wrote = self.options, scope.wrote
        code = int(status) if str(status).isdecimal() else 0
        if may_have_written(method, code, recorded=scope.recorded, unrecorded=scope.unrecorded):
            unseen = Marker(time.time())
            wrote = unseen if wrote is None else wrote.merge(unseen)
        if wrote is None or not self._is_on:
            return None
        marker = wrote if scope.marker is None else wrote.merge(scope.marker, options.position_max_age / PERIODS)
        token, written = self._signer.write_short(marker)
        if written is not marker:
            logger.warning(
                "The positions of the writes that a visitor must see do not fit into a cookie. So the marker contains "
                "only the time of the writes, and the master serves the visitor for `cookie_max_age` seconds."
            )
        max_age = options.cookie_max_age if written.placed_at is None else options.position_max_age
        return self._names.next(), token, self._attributes(max_age, https)

    def _attributes(self, max_age: float, https: Callable[[], bool]) -> dict[str, Any]:
        options = self.options
        secure = https() if options.cookie_secure is None else options.cookie_secure
        return {
            "max_age": math.ceil(max_age),
            "path": options.cookie_path,
            "domain": options.cookie_domain,
            # Browsers accept SameSite=None only with Secure: RFC 6265bis, section 5.6.
            "secure": secure or options.cookie_samesite == "None",
            "httponly": True,
            "samesite": options.cookie_samesite,
        }

    def mark(self, response: Any, scope: Scope, method: str, *, https: Callable[[], bool]) -> None:
        """Add the marker and the debug header to a response.

        Args:
            response: a response of Django or Werkzeug: both have ``set_cookie()``, ``headers`` and ``status_code``.
            scope: the scope of the request.
            method: the request's HTTP method.
            https: returns whether the request came over https; it is called only if needed, for few responses.
        """
        cookies, headers = self.additions(scope, method, response.status_code, https=https)
        for name, token, attributes in cookies:
            response.set_cookie(name, token, **attributes)
        for name, value in headers:
            response.headers[name] = value

    def adds_nothing(self, scope: Scope) -> bool:
        """Return whether the response gets neither a marker nor another header, like most responses."""
        return scope.wrote is None and scope.is_safe and not scope.pending and not self._adds_always

    def additions(
        self, scope: Scope, method: str, status: int | str, *, https: Callable[[], bool]
    ) -> tuple[list[Cookie], list[tuple[str, str]]]:
        """Return the cookies and the other headers to add to a response; see `cookie`.

        The marker does not include what is written after this call.
        """
        cookies: list[Cookie] = []
        headers: list[tuple[str, str]] = []
        if self.adds_nothing(scope):
            scope.answered = True
            return cookies, headers
        scope.hand_back()
        scope.answered = True
        if (cookie := self.cookie(scope, method, status, https=https)) is not None:
            cookies.append(cookie)
        if (ticket := scope.ticket) is not None and ticket.is_new:
            cookies.append((self.rollout.cookie_name, ticket.text, self._attributes(TICKET_AGE, https)))
        if cookies and self.options.header:
            headers.append((MARKER_HEADER, self._header(scope, cookie)))
        if self.options.debug_header:
            headers.append((DEBUG_HEADER, self.debug_header(scope)))
        return cookies, headers

    def _header(self, scope: Scope, cookie: Cookie | None) -> str:
        """Return the value of `MARKER_HEADER`: marker and ticket, because the client keeps only the latest header."""
        tokens = [] if scope.ticket is None else [scope.ticket.text]
        if cookie is not None:
            tokens.insert(0, cookie[1])
        elif scope.marker is not None:
            tokens.insert(0, self._signer.write_short(scope.marker)[0])
        return ", ".join(tokens)

    def extra_headers(self, scope: Scope, method: str, status: int | str, *, is_https: bool) -> list[tuple[str, str]]:
        """Return the headers to add to a response, for a framework without response objects. See `cookie`."""
        cookies, headers = self.additions(scope, method, status, https=lambda: is_https)
        for name, token, attributes in cookies:
            morsel: Morsel[str] = Morsel()
            morsel.set(name, token, token)
            morsel.update({key.replace("_", "-"): value or "" for key, value in attributes.items()})
            headers.append(("Set-Cookie", morsel.OutputString()))
        return headers

    def debug_header(self, scope: Scope) -> str:
        """Return the decisions, separated by commas, each as ``slave; server=slave1.db; reason=method``."""
        decisions = scope.decisions or (() if scope.decision is None else (scope.decision,))
        return ", ".join(map(_header_value, decisions))


def _enclosing(scope: Scope) -> Scope | None:
    """Return the scope if its request or job is running, or its response is being sent; otherwise None."""
    is_over = scope.ended and not scope.is_streamed
    return scope if (scope.is_request or scope.is_job) and not is_over else None


def _wanted(override: object) -> object:
    return override.override if isinstance(override, Answers) else override


def _header_value(decision: Decision) -> str:
    server = "" if decision.server is None else f"; server={quote(decision.server, safe='/:[]')}"
    return f"{decision.state}{server}; reason={decision.reason}"
