"""The options of the ASGI middleware, and what it reads from a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.test_asgi.conftest import Browser, Exchange, Receive, Send, Wrap, http_scope, respond

from replswitch import ConfigurationError, Switch
from replswitch.asgi import ReplicationMiddleware
from replswitch.state import stack


async def redirect(scope: Any, receive: Receive, send: Send) -> None:
    Switch().state  # noqa: B018 - a database whose commits are not recorded
    await respond(send, b"", status=303)


def test_the_application_may_be_the_keyword_argument_app() -> None:
    assert Browser(ReplicationMiddleware(app=redirect, secret="s")).send("POST").code == 303


def test_a_missing_secret_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="secret"):
        ReplicationMiddleware(redirect)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="cookie_nam"):
        ReplicationMiddleware(redirect, "s", cookie_nam="x")  # type: ignore[call-arg]


def test_an_application_that_cannot_be_called_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'main:app' cannot be called"):
        ReplicationMiddleware("main:app", "s")  # type: ignore[arg-type]


@pytest.mark.parametrize(("path", "side"), [("/search", "slave"), ("/other", "master")])
def test_r1_override_gets_the_connection_scope(wrap: Wrap, path: str, side: str) -> None:
    def reads(scope: Any) -> str | None:
        return "slave" if scope["path"] == "/search" else None

    assert Browser(wrap(redirect, override=reads)).send("POST", path=path).side == side


def test_an_override_that_returns_no_state_is_an_error_and_leaves_no_state(wrap: Wrap) -> None:
    with pytest.raises(ConfigurationError, match="override"):
        Browser(wrap(redirect, override=lambda scope: "replica")).send()
    assert stack() is None


def test_enabled_false_reads_and_sets_no_marker(wrap: Wrap, token: Callable[..., str]) -> None:
    app = wrap(redirect, enabled=False, override=lambda scope: "slave")
    answer = Browser(app).send("POST", headers=(("cookie", f"just_updated={token()}"),))
    assert (answer.cookies, answer.told) == ([], "master; reason=disabled")


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_m6_the_cookie_has_its_default_attributes_and_is_secure_on_https(wrap: Wrap, scheme: str, secure: bool) -> None:
    (cookie,) = Browser(wrap(redirect)).send("POST", scheme=scheme).cookies
    assert cookie.startswith("just_updated")
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=10"} <= set(cookie.split("; "))
    assert ("Secure" in cookie) is secure


def test_m1_the_header_carries_the_marker_for_clients_without_cookies(wrap: Wrap) -> None:
    app = wrap(redirect, header=True)
    (marker,) = Browser(app).send("POST").values("Replswitch-Marker")
    assert Browser(app).send(headers=(("replswitch-marker", marker),)).side == "master"
    assert Browser(wrap(redirect)).send(headers=(("replswitch-marker", marker),)).side == "slave"


def test_r2_a_forged_cookie_changes_nothing(wrap: Wrap, token: Callable[..., str]) -> None:
    forged = ReplicationMiddleware(redirect, "another secret", debug_header=True)
    assert Browser(forged).send(headers=(("cookie", f"just_updated={token()}"),)).side == "slave"


def test_m5_a_cookie_that_is_no_text_is_ignored(wrap: Wrap) -> None:
    headers = [(b"cookie", b"just_updated=\xff\xfe.\x00; just_updated_1=\xe4")]
    assert asyncio.run(Exchange(wrap(redirect), http_scope() | {"headers": headers}).run()).side == "slave"
