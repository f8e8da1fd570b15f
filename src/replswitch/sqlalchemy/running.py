"""Record the running statement of a session, for tracing tools that describe it in spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, event

from replswitch.sqlalchemy.opening import route_of
from replswitch.telemetry.running import running, watching

if TYPE_CHECKING:
    from sqlalchemy import Connection


def watch_statements() -> None:
    """Record the running statement of each engine while a tracing tool watches. Add no listeners before that."""
    watching.when_on(_listen)


def _listen() -> None:
    # Listeners of the class run before those of an engine, where the instrumentation begins its span.
    listeners = (("before_cursor_execute", _begins), ("after_cursor_execute", _ends), ("handle_error", _ends))
    for name, listener in listeners:
        if not event.contains(Engine, name, listener):
            event.listen(Engine, name, listener)


def _begins(connection: Connection, *_: object) -> None:
    route = route_of(connection) if watching.on else None
    link = None if route is None else route.link_on(connection)
    if route is not None and link is not None:
        running.set((route.route.tally_on(link), route.driver))


def _ends(*_: object) -> None:
    running.set(None)
