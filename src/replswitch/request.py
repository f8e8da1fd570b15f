"""What happens to one request, whatever the framework: decide at its beginning, mark at its end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from replswitch.marker import Marker, MarkerNames, MarkerSigner
from replswitch.policy import SAFE_METHODS, Decision, decide, needs_marker
from replswitch.scope import Scope
from replswitch.state import Frame, instruction

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from replswitch.options import RequestOptions, Secret

#: The response header that tells what was decided (the option ``debug_header``).
DEBUG_HEADER = "Replswitch"


class MarkerCookie(NamedTuple):
    """A cookie for a response.

    Attributes:
        name: one of the names of the option ``cookie_name``.
        value: the token, of letters, digits and ``-_.``.
        max_age: seconds.
        secure: whether browsers may send it over https only.
    """

    name: str
    value: str
    max_age: int
    secure: bool


class RequestPolicy:
    """Begins and ends requests. One for an application, shared by its threads.

    Args:
        options: how requests are switched and marked.
        secret: signs the markers; a string, or several with the newest first.

    Attributes:
        cookie_names: the names under which a marker may come.

    Raises:
        ConfigurationError: there is no secret.
    """

    def __init__(self, options: RequestOptions, secret: Secret) -> None:
        self.options = options
        self._signer = MarkerSigner(secret)
        self._names = MarkerNames(options.cookie_name)
        self.cookie_names = frozenset(self._names.all)

    def begin(self, method: str, tokens: Sequence[str], override: object = None) -> Frame:
        """Decide for a request.

        Args:
            method: the HTTP method.
            tokens: the values of the cookies in `cookie_names`, just as the client sent them.
            override: what the option ``override`` returned.

        Returns:
            the instruction to put in force while the request is worked on; its scope is the request's.

        Raises:
            ConfigurationError: ``override`` is neither a state nor None.
        """
        options = self.options
        scope = Scope()
        if tokens and options.enabled:
            scope.marker = self._signer.read(tokens, now=time.time(), max_age=options.cookie_max_age)
        decision = decide(method, marker=scope.marker, override=override, enabled=options.enabled)
        scope.decision = decision
        scope.is_safe = method in SAFE_METHODS
        scope.master_only = decision.final
        return instruction(decision.state, scope)

    def cookie(self, scope: Scope, method: str, status: int | str, *, https: bool) -> MarkerCookie | None:
        """Return the marker that the response must carry; None when there is nothing new (M6).

        Args:
            scope: the request's.
            method: its HTTP method.
            status: the response's status code; something that is none counts as no redirect.
            https: whether the request came over https.
        """
        options, written_at = self.options, scope.written_at
        if written_at is None and method in SAFE_METHODS:
            return None  # most responses
        code = int(status) if str(status).isdecimal() else 0
        if not options.enabled or not needs_marker(
            method, code, written=written_at is not None, recorded=scope.recorded, unrecorded=scope.unrecorded
        ):
            return None
        marker = Marker(time.time() if written_at is None else written_at)
        if scope.marker is not None:
            marker = marker.merge(scope.marker)
        # Browsers take SameSite=None with Secure only: RFC 6265bis, section 5.6.
        secure = https if options.cookie_secure is None else options.cookie_secure
        return MarkerCookie(
            self._names.next(),
            self._signer.write(marker),
            math.ceil(options.cookie_max_age),
            secure or options.cookie_samesite == "None",
        )

    def debug_header(self, scope: Scope) -> str:
        """Return what was decided: ``slave; server=slave1.db; reason=method``, one behind the other."""
        told = scope.decisions or (() if scope.decision is None else (scope.decision,))
        return ", ".join(map(_header_value, told))


def marker_tokens(cookie_header: str, names: Collection[str]) -> list[str]:
    """Return the values of all cookies with one of the names, also where several have the same.

    A library would undo the quoting of all other cookies; a token has none, and this takes linear time.
    """
    pairs = (pair.partition("=") for pair in cookie_header.split(";"))
    return [value.strip(' \t"') for name, _, value in pairs if name.strip() in names]


def _header_value(decision: Decision) -> str:
    server = "" if decision.server is None else f"; server={quote(decision.server, safe='/:[]')}"
    return f"{decision.state}{server}; reason={decision.reason}"
