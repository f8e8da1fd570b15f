"""Decide from the facts of a request. The functions are pure: they know no framework, no clock and no thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER, SLAVE, Decision
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from replswitch.request.marker import Marker

#: The methods that read (R1). RFC 9110, section 9.2.1, and QUERY of the HTTP working group's draft.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})

#: Responses that redirect visitors to the page that must show their write (M1). RFC 9110, section 15.4.
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


# Created once, because every request uses them.
_DISABLED: Final = Decision(MASTER, "disabled", final=True)
_MARKER: Final = Decision(MASTER, "marker", final=True)
_READ: Final = Decision(SLAVE, "method")
_WRITE: Final = Decision(MASTER, "method")

#: The decision for a safe request that runs again on the master (R5).
REPLAY: Final = Decision(MASTER, "replay", final=True)


def decide(method: str, marker: Marker | None = None, override: object = None, enabled: bool = True) -> Decision:
    """Decide the state of a request.

    Args:
        method: the HTTP method, in capitals as in HTTP.
        marker: what the visitor must see, already verified; None without a valid marker.
        override: what the option ``override`` returned: ``"master"``, ``"slave"`` or None.
        enabled: the option ``enabled``.

    Returns:
        the decision. It is final for a marker without a position, because no server can be compared with a time (R4).
        Positions can be checked: each database chooses its server by them.

    Raises:
        ConfigurationError: ``override`` is any other value.
    """
    if override is not None and override not in (MASTER, SLAVE):
        raise ConfigurationError(
            f'The option "override" returned {override!r}. It may return "master", "slave", or None to let the '
            "method decide."
        )
    if not enabled:
        return _DISABLED
    if marker is not None and marker.written_at is not None:
        return _MARKER
    if override is not None:
        return Decision(MASTER if override == MASTER else SLAVE, "override")
    return _READ if method in SAFE_METHODS else _WRITE


def may_have_written(method: str, status: int, *, recorded: bool, unrecorded: bool) -> bool:
    """Say whether a response must carry a marker because the writes of its request are not recorded (M1).

    Args:
        method: the request's HTTP method.
        status: the response's status code.
        recorded: the request has used a database that records its commits.
        unrecorded: the request has used a database whose commits are not recorded.
    """
    return (unrecorded or not recorded) and method not in SAFE_METHODS and status in REDIRECTS
