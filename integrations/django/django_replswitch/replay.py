"""Django's part of running a request again on the master, after a write in it could not be moved there (R5)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.db import connections
from django.urls import set_urlconf

from django_replswitch.backends.errors import RefusedWriteError
from replswitch.request.replay import Framework, committed_on_close

if TYPE_CHECKING:
    from collections.abc import Hashable

    from django.http import HttpRequest, HttpResponseBase

    from replswitch.scope import Scope


class _Uncached:
    """A mixin for the request of a first try. It prevents Django's cache middleware from storing the response."""

    @property
    def _cache_update_cache(self) -> bool:
        return False

    @_cache_update_cache.setter
    def _cache_update_cache(self, wanted: bool) -> None:
        """Ignore the value that Django's cache middleware sets."""


class DjangoRequest(Framework):
    """Django's part of a request that may run again, with the HttpRequest and its state before the first try.

    For speed, it has no ``__init__``, because the middleware makes an object for each GET request. The middleware sets
    the slots.

    Attributes:
        request: the request.
        before: copies of the request's attributes and of its ``META``, made before the first try.
    """

    __slots__ = ("before", "request")

    request: HttpRequest
    before: tuple[dict[str, Any], dict[str, Any]]

    def endpoint(self) -> Hashable:
        """Return the route and the view's name; None before they are known."""
        return endpoint_of(self.request)

    def waits_for_this_thread(self) -> bool:
        """Return whether an event loop waits for this thread of asgiref, and receives its exceptions."""
        return getattr(SyncToAsync.threadlocal, "main_event_loop", None) is not None

    def refused(self) -> None:
        """After a write that could not be moved, keep the response out of Django's page cache.

        Otherwise the second try would be answered from the cache.
        """
        request = self.request
        if not isinstance(request, _Uncached):
            request.__class__ = type(type(request).__name__, (_Uncached, type(request)), {})

    def restore(self) -> None:
        """Reset the request to its state before the first try."""
        request = self.request
        for mapping, copy in zip((vars(request), request.META), self.before, strict=True):
            mapping.clear()
            mapping.update(copy)
        if isinstance(request, _Uncached):
            request.__class__ = type(request).__bases__[1]
        set_urlconf(settings.ROOT_URLCONF)


def endpoint_of(request: HttpRequest) -> Hashable:
    """Return the route and the view's name of a request; None before they are known."""
    match = request.resolver_match
    return None if match is None else (match.route, match.view_name)  # not the view itself, which may be unhashable


def may_run_again(request: HttpRequest, scope: Scope) -> bool:
    """Return whether a request runs again, because a write in it could not be moved to the master.

    Args:
        request: the request.
        scope: the scope of its first try.
    """
    safe = scope.safe_request
    if safe is None or not scope.may_run_again():
        return False
    safe.runs_again = not _has_replaced_session(request)
    return safe.runs_again


def _has_replaced_session(request: HttpRequest) -> bool:
    """Return whether the request has deleted the session of the visitor's cookie, or given the session another key."""
    session = vars(request).get("session")
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if session is None or key is None or isinstance(session, SignedCookies):
        return False
    if session.session_key is None:
        return bool(session.modified)  # if it is not modified, the store has no session with the cookie's key
    return bool(session.session_key != key)


def close_first(response: HttpResponseBase, scope: Scope) -> None:
    """Close the response of the first try. Call this function in the state of that try.

    Raises:
        SlaveWriteError: closing the response has committed something.
    """
    # Do not call its close(), which signals the end of the request.
    for close in response._resource_closers:  # type: ignore[attr-defined]  # the type stubs leave it out
        with suppress(Exception):
            close()
    safe = scope.safe_request
    if scope.has_committed() and safe is not None and safe.refusal is not None:
        error = committed_on_close(safe.refusal)
        raise RefusedWriteError(str(error), server=error.server, place=error.place)


def close_open_transactions() -> None:
    """Close the transactions that the first try has left open."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a test case runs its requests in an atomic block of its own
            connection.close_if_unusable_or_obsolete()


def restore(first: Scope) -> None:
    """Reset the request of a first try to its state before the try."""
    safe = first.safe_request
    if safe is not None and isinstance(safe.framework, DjangoRequest):
        safe.framework.restore()
