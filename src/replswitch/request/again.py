"""The part of a policy that runs safe requests again, and lets the master serve endpoints that have written (R5)."""

from __future__ import annotations

import logging
import time
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER
from replswitch.engine.events import count, tell
from replswitch.outside import Outside
from replswitch.request.decide import REPLAY
from replswitch.request.replay import Endpoints, SafeRequest
from replswitch.state import instruction
from replswitch.telemetry.requests import request_log, show_request
from replswitch.telemetry.running import watching

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.scope import Scope
    from replswitch.state import Frame

#: The methods whose requests may run again. Pages that write are not expected with the other safe methods.
REPEATABLE: Final = frozenset({"GET", "HEAD"})


class RepeatingPolicy:
    """Begins the second try of a safe request whose write could not be moved. It is a base class of `RequestPolicy`.

    Attributes:
        endpoints: the application's endpoints that have written.
    """

    def __init__(self) -> None:
        self.endpoints = Endpoints()

    def _scope(self, cookies: str, header: str, within: Scope | None) -> Scope:
        """Return the scope of a request, with its markers; `RequestPolicy` implements this."""
        raise NotImplementedError

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
        """Begin the second try of a request that may run again (R5). The master serves the whole second try.

        Args:
            first: the scope of the first try.
            method: see `begin`.
            cookies: see `begin`.
            header: see `begin`.

        Returns:
            the instruction to put in force; see `begin`.
        """
        request, scope = first.safe_request, self._scope(cookies, header, first.within)
        assert request is not None and request.refusal is not None  # noqa: S101, PT018 - for the type checker
        first.version += 1  # tasks of the first try choose a server again, and are refused
        scope.decision, scope.is_safe, scope.master_only = REPLAY, True, True
        scope.held_back, scope.ticket = first.held_back, first.ticket
        scope.safe_request = self._try(request.endpoint, False)
        scope.call_at_end(self._learn)
        if watching.on or request_log.isEnabledFor(logging.DEBUG):
            show_request(scope, method, request.endpoint)
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
