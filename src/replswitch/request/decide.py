"""Decide the state of a request, and whether its response needs a marker. The functions are pure."""

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
        the decision. It is final, so that `use_slave()` cannot change it, if replswitch is disabled, or if the marker
        has a time instead of positions, with which no server can be compared (R4). A marker with positions does not
        change the decision, because each database later chooses a server that has reached them.

    Raises:
        ConfigurationError: ``override`` is any other value.
    """
    if override is not None and override not in (MASTER, SLAVE):
        raise ConfigurationError(
            f'The function in the option "override" returned {override!r}. It must return "master", "slave", or None'
            " to let the HTTP method decide."
        )
    if not enabled:
        return _DISABLED
    if marker is not None and marker.written_at is not None:
        return _MARKER
    if override is not None:
        return Decision(MASTER if override == MASTER else SLAVE, "override")
    return _READ if method in SAFE_METHODS else _WRITE


def may_have_written(method: str, status: int, *, recorded: bool, unrecorded: bool) -> bool:
    """Return whether a response must carry a marker because the writes of its request are not recorded (M1).

    Args:
        method: the request's HTTP method.
        status: the response's status code.
        recorded: the request has used a database that records its commits.
        unrecorded: the request has used a database whose commits are not recorded.
    """
    return (unrecorded or not recorded) and method not in SAFE_METHODS and status in REDIRECTS
