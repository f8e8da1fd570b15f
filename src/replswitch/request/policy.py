"""Decide at the start of a request and set its marker at the end, in the same way for every framework."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from http.cookies import Morsel
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.events import count, tell
from replswitch.outside import Outside
from replswitch.request.decide import REPLAY, SAFE_METHODS, decide, may_have_written
from replswitch.request.marker import Marker, MarkerNames, MarkerSigner
from replswitch.request.replay import Endpoints, SafeRequest
from replswitch.scope import Scope
from replswitch.state import Frame, instruction, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from replswitch.decision import Decision
    from replswitch.request.options import RequestOptions, Secret

Cookie = tuple[str, str, dict[str, Any]]
"""A cookie: its name; its value, which consists of letters, digits and ``-_.``; and its attributes, named like the
parameters of ``set_cookie()`` on the responses of Django and Werkzeug."""

logger = logging.getLogger(__name__)

# The method of a websocket's handshake over HTTP/2 (RFC 8441). It is unsafe.
_HANDSHAKE: Final = "CONNECT"

# The methods that may run again. With the other safe methods, applications have no pages that write.
_REPEATABLE: Final = frozenset({"GET", "HEAD"})

#: The header of requests and responses that carries the marker for clients without cookies (the option ``header``).
MARKER_HEADER = "Replswitch-Marker"

#: Writes in the same quarter of `position_max_age` share the latest date, so that a marker does not grow with each.
PERIODS: Final = 4

#: The response header that contains the decisions (the option ``debug_header``).
DEBUG_HEADER = "Replswitch"


class RequestPolicy:
    """Begins and ends requests. An application has one policy; its threads share it.

    Args:
        options: how requests are switched and marked.
        secret: the key that signs the markers; a string, or several with the newest first.

    Attributes:
        cookie_names: the names that the cookie of a marker may have.

    Raises:
        ConfigurationError: there is no secret.
    """

    def __init__(self, options: RequestOptions, secret: Secret) -> None:
        self.options = options
        self._ages = {"max_age": options.cookie_max_age, "position_max_age": options.position_max_age}
        self._signer = MarkerSigner(secret)
        self._names = MarkerNames(options.cookie_name)
        self.cookie_names = frozenset(self._names.all)
        self.endpoints = Endpoints()

    def override(self, request: Any) -> object:
        """Return the result of the option ``override`` for a request of the framework; None without the option."""
        options = self.options
        return options.override(request) if options.override is not None and options.enabled else None

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

        If the request is made inside another request or a job in the same process, each sees what the other writes. A
        request or job that has ended does not count: a server may run the next request of a connection in its context.

        Args:
            method: the HTTP method.
            cookies: the header ``Cookie``.
            header: the header `MARKER_HEADER`.
            override: the result of the option ``override``.
            path: the path of the request, if the binding can run it again (R5); else None.
            has_body: the request has a body, which can be read only once.

        Returns:
            the instruction to put in force while the request runs; its scope is the scope of the request.

        Raises:
            ConfigurationError: ``override`` is neither a state nor None.
        """
        options, around = self.options, stack()
        within = None if around is None else _enclosing(around.scope)
        # Most requests have no marker, so there is nothing to parse.
        is_plain = within is None and not header and options.cookie_name not in cookies
        scope = Scope() if is_plain else self._scope(cookies, header, within)
        # The arguments are positional: this runs for each request, and keyword arguments are slower.
        decision = decide(method, scope.marker, override, options.enabled)
        scope.decision, scope.master_only = decision, decision.final
        if method not in SAFE_METHODS:
            scope.wait_for_writes()
            return instruction(decision.state, scope)
        scope.is_safe = True
        if path is not None and options.replay and options.enabled:
            scope.safe_request = self._try(path, not has_body and method in _REPEATABLE)
            if self.endpoints.known:
                self.reach(scope, path)
        return instruction(decision.state, scope)

    def begin_socket(self, cookies: str, header: str = "", override: object = None) -> Frame:
        """Begin a websocket, which is in master state unless ``override`` says otherwise; see `begin`."""
        frame = self.begin(_HANDSHAKE, cookies, header, override)
        if override == SLAVE:  # a marker by time ends before the socket does
            frame.state = SLAVE
        return frame

    def renew(self, scope: Scope, override: object = None) -> None:
        """Begin the next message of a websocket like a request of its own; see `replswitch.scope.Scope.renew`."""
        scope.renew(**self._ages)
        scope.decision = decision = decide(_HANDSHAKE, scope.marker, override, self.options.enabled)
        scope.master_only = decision.final

    def _scope(self, cookies: str, header: str, within: Scope | None) -> Scope:
        """Make a scope that must see what its markers ask for, and what the enclosing request has written."""
        scope, marker = Scope(), None
        scope.within = within
        if self.options.enabled and (tokens := self._tokens(cookies, header)):
            marker = self._signer.read(tokens, now=time.time(), **self._ages)
        known = within.all_written() if within is not None and self.options.enabled else None
        if known is not None and (known := known.holding(time.time(), **self._ages)) is not None:
            marker = known if marker is None else known.merge(marker)
        if marker is not None:
            scope.adopt_marker(marker, self.options.cookie_max_age)
        return scope

    # A safe request that writes (R5)

    def _try(self, endpoint: Hashable, is_repeatable: bool) -> SafeRequest:
        request = SafeRequest()
        request.endpoints, request.endpoint, request.is_repeatable = self.endpoints, endpoint, is_repeatable
        request.began_at, request.thread, request.refusal = time.monotonic(), get_ident(), None
        request.commits_outside = Outside.commits
        return request

    def reach(self, scope: Scope, endpoint: Hashable) -> None:
        """Force the master for a request, if earlier requests to the same endpoint have written.

        Args:
            scope: the scope of the request.
            endpoint: the endpoint that the framework has resolved.
        """
        databases = self.endpoints.databases(endpoint)
        if databases and scope.safe_request is not None and scope.decision is not REPLAY:
            for database in databases:
                scope.force_master(database, "learned")
            scope.call_at_end(partial(self._count_use, endpoint))

    def begin_again(self, first: Scope, method: str, cookies: str, header: str = "") -> Frame:
        """Begin the second try of a request whose first try `may_run_again`. The master serves all of it.

        Args:
            first: the scope of the first try.
            method: see `begin`.
            cookies: likewise.
            header: likewise.
        """
        request, scope = first.safe_request, self._scope(cookies, header, first.within)
        assert request is not None and request.refusal is not None  # noqa: S101, PT018 - for the type checker
        first.version += 1  # tasks that are left of the first try choose again, and are refused
        scope.decision, scope.is_safe, scope.master_only = REPLAY, True, True
        scope.safe_request = self._try(request.endpoint, False)
        scope.call_at_end(self._learn)
        database, server, place = request.refusal
        if self.endpoints.is_new(request.endpoint, place):
            tell(
                "replay",
                database,
                server,
                "A %s request ran again on the master, because a write in it, at %s, could not be moved there. From "
                "now on, requests to this endpoint begin on the master, until they have stopped writing. If the write "
                "does not depend on earlier reads, call use_master() around it.",
                method,
                place,
            )
        else:
            count("replay", database, server)
        return instruction(MASTER, scope)

    def _count_use(self, endpoint: Hashable, scope: Scope) -> None:
        request = scope.safe_request
        if request is not None and not scope.is_streamed:
            self.endpoints.used(endpoint, wrote=bool(scope.written) or scope.has_unmarked)

    def _learn(self, scope: Scope) -> None:
        if scope.safe_request is not None and scope.written:
            scope.safe_request.learn(scope.written)

    def _tokens(self, cookies: str, header: str) -> list[str]:
        """Return the possible markers in a request, just as the client sent them.

        The header `MARKER_HEADER` is only used with the option ``header``. In it, commas separate several markers.
        """
        found = marker_tokens(cookies, self.cookie_names)
        if header and self.options.header:
            found += map(str.strip, header.split(","))
        return found

    def cookie(self, scope: Scope, method: str, status: int | str, *, https: Callable[[], bool]) -> Cookie | None:
        """Return the cookie with the marker that the response must carry; None if there is nothing new (M6).

        Args:
            scope: the scope of the request, without pending writes.
            method: the HTTP method of the request.
            status: the response's status code; a value that is not a number counts as no redirect.
            https: says whether the request came over https.
        """
        options, wrote = self.options, scope.wrote
        code = int(status) if str(status).isdecimal() else 0
        if may_have_written(method, code, recorded=scope.recorded, unrecorded=scope.unrecorded):
            unseen = Marker(time.time())
            wrote = unseen if wrote is None else wrote.merge(unseen)
        if wrote is None or not options.enabled:
            return None
        marker = wrote if scope.marker is None else wrote.merge(scope.marker, options.position_max_age / PERIODS)
        token, written = self._signer.write_short(marker)
        if written is not marker:
            logger.warning(
                "The positions of the writes that a visitor must see do not fit into a cookie. Their marker contains "
                "only the time of the writes, so the master serves their reads for `cookie_max_age` seconds."
            )
        max_age = options.cookie_max_age if written.placed_at is None else options.position_max_age
        secure = https() if options.cookie_secure is None else options.cookie_secure
        return (
            self._names.next(),
            token,
            {
                "max_age": math.ceil(max_age),
                "path": options.cookie_path,
                "domain": options.cookie_domain,
                # Browsers accept SameSite=None only with Secure: RFC 6265bis, section 5.6.
                "secure": secure or options.cookie_samesite == "None",
                "httponly": True,
                "samesite": options.cookie_samesite,
            },
        )

    def mark(self, response: Any, scope: Scope, method: str, *, https: Callable[[], bool]) -> None:
        """Add the marker and the debug header to a response.

        Args:
            response: a response of Django or Werkzeug: both have ``set_cookie()``, ``headers`` and ``status_code``.
            scope: the scope of the request.
            method: the request's HTTP method.
            https: says whether the request came over https; it is called only if needed, for few responses.
        """
        cookie, headers = self.additions(scope, method, response.status_code, https=https)
        if cookie is not None:
            name, token, attributes = cookie
            response.set_cookie(name, token, **attributes)
        for name, value in headers:
            response.headers[name] = value

    def additions(
        self, scope: Scope, method: str, status: int | str, *, https: Callable[[], bool]
    ) -> tuple[Cookie | None, list[tuple[str, str]]]:
        """Return what to add to a response: a cookie or None, and headers. See `cookie`.

        The marker does not include later writes.
        """
        headers: list[tuple[str, str]] = []
        if scope.wrote is None and scope.is_safe and not scope.pending and not self.options.debug_header:
            scope.answered = True
            return None, headers  # the common case
        scope.hand_back()
        scope.answered = True
        cookie = self.cookie(scope, method, status, https=https)
        if cookie is not None and self.options.header:
            headers.append((MARKER_HEADER, cookie[1]))
        if self.options.debug_header:
            headers.append((DEBUG_HEADER, self.debug_header(scope)))
        return cookie, headers

    def extra_headers(self, scope: Scope, method: str, status: int | str, *, is_https: bool) -> list[tuple[str, str]]:
        """Return the headers to add to a response, for a framework without response objects. See `cookie`."""
        cookie, headers = self.additions(scope, method, status, https=lambda: is_https)
        if cookie is not None:
            name, token, attributes = cookie
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
    """Return the scope if it is that of a running request or job, or of a response that is being sent."""
    is_over = scope.ended and not scope.is_streamed
    return scope if (scope.is_request or scope.is_job) and not is_over else None


def marker_tokens(cookie_header: str, names: Collection[str]) -> list[str]:
    """Return the values of all cookies with one of the names, even if several cookies have the same name.

    No library is used: it would unquote all other cookies as well. A token needs no unquoting, and this function takes
    linear time.
    """
    pairs = (pair.partition("=") for pair in cookie_header.split(";"))
    return [value.strip(' \t"') for name, _, value in pairs if name.strip() in names]


def _header_value(decision: Decision) -> str:
    server = "" if decision.server is None else f"; server={quote(decision.server, safe='/:[]')}"
    return f"{decision.state}{server}; reason={decision.reason}"
