"""Django's part of running a request again on the master, after a write in it could not move there (R5)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.db import connections
from django.urls import set_urlconf

if TYPE_CHECKING:
    from collections.abc import Hashable

    from django.http import HttpRequest, HttpResponseBase

    from replswitch.scope import Scope


def endpoint_of(request: HttpRequest) -> Hashable:
    """Return the route and the view's name of a request; None before they are known."""
    match = request.resolver_match
    return None if match is None else (match.route, match.view_name)  # not the view itself, which may be unhashable


def is_waited_for() -> bool:
    """Return whether this thread runs synchronous code for an event loop, which receives the exceptions."""
    return getattr(SyncToAsync.threadlocal, "main_event_loop", None) is not None


def may_run_again(request: HttpRequest, scope: Scope, response: HttpResponseBase | None = None) -> bool:
    """Return whether a request whose write could not move runs again.

    Args:
        request: the request.
        scope: the scope of its first try.
        response: the response of the first try, if the application has caught the error; None after a `Replay`.
    """
    safe = scope.safe_request
    if safe is None or not scope.may_run_again():
        return False
    safe.runs_again = not _has_changed_session(request, was_saved=response is not None)
    return safe.runs_again


def _has_changed_session(request: HttpRequest, *, was_saved: bool) -> bool:
    """Return whether the session of the visitor's cookie has changed: it was saved, ended, or got another key."""
    session = vars(request).get("session")
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if session is None or key is None:
        return False
    if session.session_key is None:
        return bool(session.modified)  # if it is not modified, the store has no session with the cookie's key
    return session.session_key != key or (was_saved and bool(session.modified))


def let_go(response: HttpResponseBase | None) -> None:
    """Close what the first try has left open: its response, if there is one, and its transactions."""
    if response is not None:
        # Do not call its close(), which signals the end of the request.
        for close in response._resource_closers:  # type: ignore[attr-defined]  # the type stubs leave it out
            with suppress(Exception):
                close()
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a test case runs its requests in an atomic block of its own
            connection.close_if_unusable_or_obsolete()


def restore(request: HttpRequest, before: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Reset a request to its state before the first try.

    Args:
        request: the request.
        before: copies of its attributes and of its ``META``.
    """
    for mapping, copy in zip((vars(request), request.META), before, strict=True):
        mapping.clear()
        mapping.update(copy)
    set_urlconf(settings.ROOT_URLCONF)
