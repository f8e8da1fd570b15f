"""The pure decisions: which side a request gets, and whether its response needs a marker."""

from __future__ import annotations

import pytest

from replswitch import ConfigurationError
from replswitch.decision import Decision
from replswitch.positions import MariaDBPosition
from replswitch.request.decide import REDIRECTS, SAFE_METHODS, decide, may_have_written
from replswitch.request.marker import Marker

MARKER = Marker(1.0)
PLACED = Marker(positions={"shop": MariaDBPosition.parse("0-1-42")}, placed_at=1.0)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_r1_methods_that_read_ask_for_a_slave(method: str) -> None:
    assert decide(method) == Decision("slave", "method", server=None, final=False)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "", "GETT"])
def test_r1_a_method_that_is_not_known_to_read_asks_for_the_master(method: str) -> None:
    assert decide(method) == Decision("master", "method", server=None, final=False)


@pytest.mark.parametrize(
    ("method", "marker", "override", "enabled", "decision"),
    [
        # the override comes before the method …
        ("GET", None, "master", True, Decision("master", "override")),
        ("GET", None, "slave", True, Decision("slave", "override")),
        ("POST", None, "slave", True, Decision("slave", "override")),
        ("POST", None, "master", True, Decision("master", "override")),
        ("POST", None, None, True, Decision("master", "method")),
        # … but a marker, which nothing can check, before it, and for everything in the request (R4) …
        ("GET", MARKER, None, True, Decision("master", "marker", final=True)),
        ("GET", MARKER, "slave", True, Decision("master", "marker", final=True)),
        ("POST", MARKER, None, True, Decision("master", "marker", final=True)),
        # … where positions can be checked, by each database …
        ("GET", PLACED, None, True, Decision("slave", "method")),
        ("GET", PLACED, "master", True, Decision("master", "override")),
        ("POST", PLACED, None, True, Decision("master", "method")),
        # … and the kill switch before everything
        ("GET", None, None, False, Decision("master", "disabled", final=True)),
        ("GET", None, "slave", False, Decision("master", "disabled", final=True)),
        ("GET", MARKER, "slave", False, Decision("master", "disabled", final=True)),
    ],
    ids=[
        "GET, override=master",
        "GET, override=slave",
        "POST, override=slave",
        "POST, override=master",
        "POST, override=None",
        "GET, marker by time",
        "GET, marker by time, override=slave",
        "POST, marker by time",
        "GET, marker with a position",
        "GET, marker with a position, override=master",
        "POST, marker with a position",
        "GET, enabled=False",
        "GET, enabled=False, override=slave",
        "GET, enabled=False, marker by time, override=slave",
    ],
)
def test_r1_enabled_marker_and_override_come_before_the_method(
    method: str, marker: Marker | None, override: str | None, enabled: bool, decision: Decision
) -> None:
    assert decide(method, marker=marker, override=override, enabled=enabled) == decision


@pytest.mark.parametrize("nonsense", ["Master", "SLAVE", "", "replica", 1, 0, True, False, [], b"slave", object()])
def test_an_override_that_returns_no_state_is_an_error(nonsense: object) -> None:
    with pytest.raises(ConfigurationError, match=r'"override" returned .*It must return "master", "slave", or None'):
        decide("GET", override=nonsense)


@pytest.mark.parametrize(
    ("recorded", "unrecorded", "needed"),
    [
        (True, False, False),  # every database in use records its writes
        (True, True, True),
        (False, True, True),
        (False, False, True),  # nothing was used that we know of; what we do not know of may have been written to
    ],
)
@pytest.mark.parametrize("status", sorted(REDIRECTS))
def test_m1_a_redirect_after_an_unsafe_method_counts_as_a_write_if_commits_are_not_recorded(
    status: int, recorded: bool, unrecorded: bool, needed: bool
) -> None:
    assert may_have_written("POST", status, recorded=recorded, unrecorded=unrecorded) is needed
    assert may_have_written("DELETE", status, recorded=recorded, unrecorded=unrecorded) is needed


@pytest.mark.parametrize("method", sorted(SAFE_METHODS))
def test_m1_a_redirect_after_a_safe_method_does_not_count_as_a_write(method: str) -> None:
    assert not may_have_written(method, 302, recorded=False, unrecorded=True)


@pytest.mark.parametrize("status", [0, 100, 200, 201, 204, 300, 304, 305, 306, 400, 404, 500])
def test_m1_a_response_that_is_no_redirect_does_not_count_as_a_write(status: int) -> None:
    assert not may_have_written("POST", status, recorded=False, unrecorded=True)


def test_301_302_303_307_and_308_are_the_status_codes_that_count_as_redirects() -> None:
    assert {301, 302, 303, 307, 308} == REDIRECTS
