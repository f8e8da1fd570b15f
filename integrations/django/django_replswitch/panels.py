"""A panel for django-debug-toolbar: where each query of a request ran, and why.

Add ``"django_replswitch.panels.ReplicationPanel"`` to ``DEBUG_TOOLBAR_PANELS``.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from debug_toolbar import panels
from django.template import Context, Engine

from django_replswitch.conf import request_policy
from replswitch import MASTER, SLAVE
from replswitch.place import application_place
from replswitch.state import stack
from replswitch.watching import watch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django.http import HttpRequest, HttpResponseBase
    from django.template import Template

    from replswitch.scope import Scope
    from replswitch.watching import Statement

_Panel: Any = panels.Panel  # older versions of the toolbar have no types

# The panel of the running request. It is also set in the threads and tasks that run in a copy of the request's context.
_running: Final[ContextVar[ReplicationPanel | None]] = ContextVar("django_replswitch.panel", default=None)

# The beginning of the names of the tables in which the toolbar itself may keep its data.
_OWN_TABLES: Final = "debug_toolbar_"


# The template is not a file, because then the panel would depend on the project's template loaders.
_HTML: Final = """
<h4>Request</h4>
<table>
  <tbody>
    {% for name, value in facts %}
      <tr>
        <th>{{ name }}</th>
        <td>{{ value }}</td>
      </tr>
    {% endfor %}
  </tbody>
</table>

<h4>Queries</h4>
{% if queries %}
  <table>
    <thead>
      <tr>
        <th>Side</th>
        <th>Server</th>
        <th>Reason</th>
        <th>Alias</th>
        <th>Query</th>
        <th>Line</th>
      </tr>
    </thead>
    <tbody>
      {% for query in queries %}
        <tr>
          <td>{{ query.side }}</td>
          <td>{{ query.server }}</td>
          <td>{{ query.reason }}</td>
          <td>{{ query.database }}</td>
          <td><code>{{ query.sql }}</code></td>
          <td>{{ query.place }}</td>
        </tr>
      {% endfor %}
    </tbody>
  </table>
{% else %}
  <p>No query ran on a database of replswitch.</p>
{% endif %}
"""


@cache
def _template() -> Template:
    return Engine().from_string(_HTML)


class ReplicationPanel(_Panel):  # type: ignore[misc]  # it is Any
    """Shows the side, the server and the reason of each query, and what was decided for the request."""

    title = "Replication"
    nav_title = "Replication"
    is_async = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._queries: list[dict[str, str]] = []
        self._scope: Scope | None = None
        self._is_inside = False  # whether the middleware of replswitch comes before the toolbar's
        self._watching: AbstractContextManager[None] | None = None
        self._outer: ReplicationPanel | None = None

    @property
    def nav_subtitle(self) -> str:
        """How many queries ran on each side."""
        stats = self.get_stats()
        if "queries" not in stats:
            return ""
        sides = [query["side"] for query in stats["queries"]]
        return f"{sides.count(SLAVE)} on slaves, {sides.count(MASTER)} on the master"

    @property
    def content(self) -> str:
        """The HTML that the panel shows."""
        return _template().render(Context(self.get_stats()))

    def enable_instrumentation(self) -> None:
        """Begin to watch the queries of the request."""
        if self._watching is not None:
            return
        frame = stack()
        if frame is not None and frame.scope.is_request:
            self._scope, self._is_inside = frame.scope, True
        self._outer = _running.get()
        _running.set(self)
        self._watching = watch(self._observe)
        self._watching.__enter__()

    def disable_instrumentation(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.__exit__(None, None, None)
            self._watching = None
            _running.set(self._outer)

    def _observe(self, statement: Statement) -> None:
        if _running.get() is not self or _OWN_TABLES in statement.sql:
            return
        frame = stack()
        if not self._is_inside and frame is not None and frame.scope.is_request:
            self._scope = frame.scope  # the latest one, because the request may run again
        self._queries.append({**statement._asdict(), "place": application_place()})

    def generate_stats(self, request: HttpRequest, response: HttpResponseBase) -> None:
        """Store what the panel shows."""
        self.record_stats({"queries": self._queries, "facts": self._facts(response)})

    def _facts(self, response: HttpResponseBase) -> list[tuple[str, str]]:
        scope = self._scope
        if scope is None or scope.decision is None:
            return [("State", "unknown, because no query has run, or replswitch's middleware is missing")]
        decision = scope.decision
        cookies = [each for each in response.cookies if each in request_policy().cookie_names]
        facts = [
            ("State", decision.state),
            ("Reason", decision.reason),
            ("Marker received", _described(scope)),
            ("Written", _written(scope)),
            ("Marker sent", _sent(scope, cookies, is_inside=self._is_inside)),
            ("Second try", "yes, a write of the first try could not be moved" if decision.reason == "replay" else "no"),
        ]
        if scope.safe_request is not None and scope.safe_request.refusal is not None:
            facts.append(("Write that could not be moved", scope.safe_request.refusal.place))
        chosen = [f"{each.state} {each.server} ({each.reason})" for each in scope.decisions]
        return [*facts, ("Servers chosen", ", ".join(chosen) or "none: no query has run")]


def _described(scope: Scope) -> str:
    """Return the marker that the request came with, in words."""
    marker = scope.marker
    if marker is None:
        return "none"
    parts = [f"{name}: {position}" for name, position in marker.positions.items()]
    if marker.written_at is not None:
        parts.append(f"a write without a position, {time.time() - marker.written_at:.1f} s ago")
    return ", ".join(parts) or "empty"


def _written(scope: Scope) -> str:
    """Return in words whether the request has committed something on the master."""
    if scope.wrote is not None:
        return "yes"
    return "perhaps: replswitch asks the master before the response is sent" if scope.pending else "no"


def _sent(scope: Scope, cookies: list[str], *, is_inside: bool) -> str:
    """Return in words whether the response has a marker."""
    if cookies:
        return f"in the cookie {cookies[0]}"
    if is_inside and (scope.wrote is not None or scope.pending):
        return "added after this panel" if scope.wrote is not None else "added after this panel if there was a write"
    return "none"
