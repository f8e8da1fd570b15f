"""Notice commits in stores that replswitch does not switch, such as sessions and other database backends (R5).

A safe request that has committed something there does not run again, because a second run would commit it twice.
"""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.db import connections
from django.db.backends.signals import connection_created

from django_replswitch.backends.connecting import ConnectingWrapper
from replswitch.engine.writes import committed_elsewhere
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

# The first words of statements that commit nothing themselves. The rest of a statement is not examined, because a wrong
# guess at most raises an error where the request could have run again.
_HARMLESS: Final = frozenset(
    {"SELECT", "BEGIN", "START", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET", "SHOW", "EXPLAIN", "PRAGMA"}
)

# The attribute in which a session store has the key of the session that it has created; and the attribute that marks a
# class as watched.
_CREATED: Final = "_replswitch_created"
_WATCHED: Final = "_replswitch_watched"


def watch_other_stores() -> None:
    """From now on, notice what the session engine and the project's databases with other backends commit."""
    with suppress(ImportError, AttributeError):  # Django reports a wrong SESSION_ENGINE itself
        _watch_sessions(import_module(settings.SESSION_ENGINE).SessionStore)
    connection_created.connect(_watch_connection, dispatch_uid=__name__)
    for connection in connections.all(initialized_only=True):
        _watch_connection(connection)


def _watch_sessions(store: Any) -> None:
    """Notice each save of a session, except for a session that the running request has created."""
    if _WATCHED in vars(store) or issubclass(store, SignedCookies):  # its cookie is discarded with the response
        return
    save, asave = store.save, store.asave

    def note(session: Any, key: str | None, *, is_new: bool) -> None:
        if is_new or key is None:  # no visitor gets the key of a session that the first try creates
            setattr(session, _CREATED, session.session_key)
        elif getattr(session, _CREATED, None) != key:
            committed_elsewhere()

    @wraps(save)
    def saving(self: Any, must_create: bool = False, *args: Any, **options: Any) -> Any:
        key = self.session_key
        result = save(self, must_create, *args, **options)
        note(self, key, is_new=must_create)
        return result

    @wraps(asave)
    async def asaving(self: Any, must_create: bool = False, *args: Any, **options: Any) -> Any:
        key = self.session_key
        result = await asave(self, must_create, *args, **options)
        note(self, key, is_new=must_create)
        return result

    store.save, store.asave = saving, asaving
    setattr(store, _WATCHED, True)


def _watch_connection(connection: Any, **_: object) -> None:
    """Notice the commits of a connection, unless its backend is ours."""
    if not isinstance(connection, ConnectingWrapper) and _execute not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _execute)  # in front, because `execute_wrapper()` removes the last one


def _execute(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    result = execute(sql, params, many, context)
    if commits(sql):
        _written(context["connection"])
    return result


def commits(sql: object) -> bool:
    """Return whether a statement may commit something, judged by its first word."""
    words = str(sql).split(None, 1)
    return bool(words) and words[0].upper() not in _HARMLESS


def _written(connection: Any) -> None:
    """Record a commit on another backend's connection. In an atomic block, record it when the block commits."""
    if not connection.in_atomic_block:
        committed_elsewhere()
        return
    frame = stack()
    if frame is not None and frame.scope.is_request and frame.scope.safe_request is None:
        return  # a request that never runs again
    open_now = set(connection.savepoint_ids)
    if not any(function is committed_elsewhere and sids <= open_now for sids, function, _ in connection.run_on_commit):
        connection.on_commit(committed_elsewhere)
