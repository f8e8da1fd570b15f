"""Report each request: its decision to tracing tools when it begins, and one line to the log when it ends."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from replswitch.telemetry.running import watching

if TYPE_CHECKING:
    from replswitch.scope import Scope

request_log = logging.getLogger("replswitch.requests")


def show_request(scope: Scope, method: str, path: object = None) -> None:
    """Give the decision for a request to tracing tools such as OpenTelemetry. When the request ends, log one line."""
    if watching.on and scope.decision is not None:
        watching.request_begins(scope.decision)
    if request_log.isEnabledFor(logging.DEBUG):
        scope.call_at_end(partial(_end, method, "" if path is None else _one_line(str(path))))


def _one_line(path: str) -> str:
    """Return a path without control characters, with which a client could forge lines of the log."""
    return "".join(each if each.isprintable() else quote(each, errors="replace") for each in path)


def _end(method: str, path: str, scope: Scope) -> bool:
    """Log one line if a request has ended. Return whether the request goes on, as a websocket between two messages."""
    decision = scope.decision
    if not scope.ended or decision is None:
        return True
    servers = [f"{each.server} ({each.state}, {each.reason})" for each in scope.decisions]
    facts = {
        "method": method,
        "path": path,
        "side": decision.state,
        "reason": decision.reason,
        "servers": servers,
        "marker": scope.marker is not None,
        "waited": scope.has_waited,
        "wrote": scope.wrote is not None or scope.has_unmarked,
        "replay": scope.safe_request is not None and scope.safe_request.runs_again,
    }
    also = {
        "marker": "it came with a marker",
        "waited": "it waited for a slave",
        "wrote": "it wrote",
        "replay": "it runs again on the master",
    }
    request_log.debug(
        "%s: %s (%s), served by %s%s",
        f"{method} {path}" if path else method,
        decision.state,
        decision.reason,
        ", ".join(servers) or "no server",
        "".join(f"; {text}" for name, text in also.items() if facts[name]),
        extra={"replswitch": facts},
    )
    return False
