"""The marker's cookie: when it is set, how it looks, and what a client may do with it (M1-M6)."""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from http.cookies import SimpleCookie
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from itsdangerous import Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from replswitch import Switch
from replswitch.decorators import use_slave
from replswitch.positions import MariaDBPosition
from replswitch.request.marker import MAX_LENGTH, Marker, MarkerSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from http.cookies import Morsel
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import Browser, Exchange, SendRequest, Wrap

    Token = Callable[..., str]

TEXT = ("Content-Type", "text/plain")
NAMES = ["just_updated", "just_updated_1", "just_updated_2", "just_updated_3"]


def redirecting(status: str = "302 Found", headers: Iterable[tuple[str, str]] = ()) -> WSGIApplication:
    """An application on a bare switch: its redirects get a marker (M1)."""
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = switch.state.encode()
        start_response(status, [TEXT, *headers])
        return [body]

    return application


def morsel(answer: Exchange) -> Morsel[str]:
    (header,) = answer.cookies
    ((_, found),) = SimpleCookie(header).items()
    return found


def side(send: SendRequest, application: WSGIApplication, *tokens: str, **extra: Any) -> str:
    """The side of a GET that comes with these markers, each under a name of its own."""
    cookie = "; ".join(f"{name}={token}" for name, token in zip(NAMES, tokens, strict=False))
    return send(application, cookie=cookie, **extra).body.decode()


# How it looks


def test_m6_the_cookie_has_its_default_attributes(send: SendRequest, wrap: Wrap) -> None:
    (header,) = send(wrap(redirecting()), "POST").cookies
    name, _, rest = header.partition("=")
    value, *attributes = rest.split("; ")
    assert name in NAMES
    assert value.replace("-", "").replace("_", "").replace(".", "").isalnum()
    named = {key.lower(): text for key, _, text in (one.partition("=") for one in attributes)}
    named.pop("expires", None)  # for browsers that do not know Max-Age
    assert named == {"max-age": "10", "path": "/", "httponly": "", "samesite": "Lax"}


def test_m6_the_cookie_is_secure_on_https(send: SendRequest, wrap: Wrap) -> None:
    application = wrap(redirecting())
    assert not morsel(send(application, "POST"))["secure"]
    assert morsel(send(application, "POST", **{"wsgi.url_scheme": "https"}))["secure"]


@pytest.mark.parametrize(
    ("options", "attribute", "http", "https"),
    [
        ({"cookie_secure": True}, "secure", True, True),
        ({"cookie_secure": False}, "secure", "", ""),
        ({"cookie_secure": None}, "secure", "", True),
        ({"cookie_domain": "example.com"}, "domain", "example.com", "example.com"),
        ({"cookie_domain": None}, "domain", "", ""),
        ({"cookie_path": "/shop/"}, "path", "/shop/", "/shop/"),
        ({"cookie_samesite": "Strict"}, "samesite", "Strict", "Strict"),
        ({"cookie_samesite": None}, "samesite", "", ""),
        ({"cookie_samesite": "None"}, "samesite", "None", "None"),
        ({"cookie_samesite": "None"}, "secure", True, True),
        ({"cookie_max_age": 90}, "max-age", "90", "90"),
        ({"cookie_max_age": 2.5}, "max-age", "3", "3"),
        ({"cookie_max_age": 0.1}, "max-age", "1", "1"),
    ],
)
def test_m6_the_cookie_options_set_the_attributes_of_the_cookie(
    send: SendRequest, wrap: Wrap, options: dict[str, Any], attribute: str, http: object, https: object
) -> None:
    application = wrap(redirecting(), **options)
    assert morsel(send(application, "POST"))[attribute] == http
    assert morsel(send(application, "POST", **{"wsgi.url_scheme": "https"}))[attribute] == https


def test_cookie_name_sets_the_names_of_the_cookies(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting(), cookie_name="mine")
    assert {morsel(send(application, "POST")).key for _ in range(4)} == {"mine", "mine_1", "mine_2", "mine_3"}
    assert send(application, cookie=f"just_updated={token()}").body == b"slave"
    for name in ("mine", "mine_1", "mine_2", "mine_3"):
        assert send(application, cookie=f"{name}={token()}").body == b"master"
    for name in ("mine_4", "mine_", "Mine", "mine2", "amine", "mine_1_1"):
        assert send(application, cookie=f"{name}={token()}").body == b"slave"


# When it is set


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MKCOL"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_m1_with_a_switch_without_a_database_a_redirect_after_an_unsafe_method_sets_the_cookie(
    send: SendRequest, wrap: Wrap, method: str, code: int
) -> None:
    assert len(send(wrap(redirecting(f"{code} Elsewhere")), method).cookies) == 1


@pytest.mark.parametrize(
    ("method", "status"),
    [
        *[(method, "302 Found") for method in ("GET", "HEAD", "OPTIONS", "TRACE", "QUERY")],
        *[("POST", status) for status in ("200 OK", "201 Created", "204 No", "300 x", "304 x", "404 x", "500 x")],
        ("GET", "200 OK"),
    ],
)
def test_m1_with_a_switch_without_a_database_a_safe_method_or_a_response_without_redirect_sets_no_cookie(
    send: SendRequest, wrap: Wrap, method: str, status: str
) -> None:
    assert send(wrap(redirecting(status)), method).cookies == []


def test_m3_a_read_with_a_marker_neither_renews_nor_deletes_the_marker(
    send: SendRequest, wrap: Wrap, token: Token
) -> None:
    for cookie in (f"just_updated={token()}", f"just_updated={token(100)}", "just_updated=broken", "just_updated="):
        assert send(wrap(redirecting("200 OK")), cookie=cookie).cookies == []


def test_cookies_of_the_application_are_kept(send: SendRequest, wrap: Wrap) -> None:
    own = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "just_updated_own=2")]
    answer = send(wrap(redirecting(headers=own)), "POST")
    assert answer.cookies[:2] == [value for _, value in own]
    assert len(answer.cookies) == 3


def test_enabled_false_keeps_every_request_on_the_master_and_ignores_cookies(
    send: SendRequest, wrap: Wrap, token: Token
) -> None:
    application = wrap(redirecting(), enabled=False)
    for method in ("GET", "POST"):
        for cookie in (None, f"just_updated={token()}"):
            answer = send(application, method, cookie=cookie)
            assert (answer.body, answer.cookies, answer.told) == (b"master", [], "master; reason=disabled")


def test_a_response_without_marker_and_debug_header_is_unchanged(send: SendRequest, wrap: Wrap) -> None:
    answer = send(wrap(redirecting("200 OK"), debug_header=False))
    assert answer.headers == [TEXT]


def test_the_debug_header_has_the_state_and_the_reason(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting(), override=lambda request: request.params.get("side"))
    assert send(application).told == "slave; reason=method"
    assert send(application, "POST").told == "master; reason=method"
    assert send(application, "GET", "side=master").told == "master; reason=override"
    assert send(application, "POST", "side=slave").told == "slave; reason=override"
    assert send(application, cookie=f"just_updated={token()}").told == "master; reason=marker"


# Override


@pytest.mark.parametrize(
    ("method", "query", "state"),
    [
        ("GET", "", b"slave"),
        ("GET", "side=master", b"master"),
        ("GET", "side=slave", b"slave"),
        ("POST", "", b"master"),
        ("POST", "side=slave", b"slave"),
    ],
)
def test_r1_override_comes_before_the_method(
    send: SendRequest, wrap: Wrap, method: str, query: str, state: bytes
) -> None:
    application = wrap(redirecting("200 OK"), override=lambda request: request.GET.get("side"))
    assert send(application, method, query).body == state


def test_r4_a_marker_without_a_position_comes_before_override(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting(), override=lambda request: "slave")
    assert side(send, application, token()) == "master"


@pytest.mark.parametrize(
    "marker",
    [Marker(time.time()), Marker(positions={"shop": MariaDBPosition.parse("0-1-42")}, placed_at=time.time())],
    ids=["by time", "with a position"],
)
def test_r4_use_slave_in_a_request_with_a_marker_leaves_a_switch_without_a_database_on_the_master(
    send: SendRequest, wrap: Wrap, secret: str, marker: Marker
) -> None:
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        with use_slave(), switch.use_slave():
            return [switch.state.encode()]

    served = wrap(application, cookie_max_age=100_000)  # the marker was made before the first test
    assert side(send, served) == "slave"
    assert side(send, served, MarkerSigner(secret).write(marker)) == "master"


def test_m1_a_post_that_override_sent_to_the_slave_marks_its_redirect(send: SendRequest, wrap: Wrap) -> None:
    answer = send(wrap(redirecting(), override=lambda request: "slave"), "POST")
    assert (answer.body, len(answer.cookies)) == (b"slave", 1)


def test_override_leaves_the_request_body_readable(send: SendRequest, wrap: Wrap) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

    seen = []

    def look(request: Any) -> None:
        seen.append(request.POST["name"])

    form: dict[str, Any] = {"wsgi.input": BytesIO(b"name=bob"), "CONTENT_LENGTH": "8"}
    form["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
    answer = send(wrap(application, override=look), "POST", **form)
    assert seen == ["bob"]
    assert answer.body == b"name=bob"


# Names in turn


def test_m4_parallel_posts_get_different_names(send: SendRequest, wrap: Wrap) -> None:
    application = wrap(redirecting())
    names = [morsel(send(application, "POST")).key for _ in range(8)]
    assert sorted(names[:4]) == sorted(names[4:]) == NAMES


def test_m4_two_parallel_posts_lose_neither_marker(
    browser_of: type[Browser], exchange: SendRequest, wrap: Wrap
) -> None:
    application = wrap(redirecting())
    browser = browser_of(application)
    first, second = exchange(application, "POST"), exchange(application, "POST")
    browser.keep(second.finish())
    browser.keep(first.finish())  # the slower one does not overwrite the newer marker
    assert len(browser.jar) == 2
    for name, value in dict(browser.jar).items():
        browser.jar = {name: value}
        assert browser.send().body == b"master"


@pytest.mark.parametrize(
    ("had", "asks_for"),
    [(-30, -30), (8, 0), (100, 0)],
    ids=["old marker 30 s ahead", "old marker of 8 s ago", "old marker of 100 s ago"],
)
def test_m4_a_new_marker_has_the_later_of_the_times_of_the_new_write_and_of_the_old_marker(
    send: SendRequest, wrap: Wrap, secret: str, token: Token, had: float, asks_for: float
) -> None:
    began = time.time()
    answer = send(wrap(redirecting()), "POST", cookie=f"just_updated={token(had)}")
    read = MarkerSigner(secret).read([morsel(answer).value], now=time.time(), max_age=1000, position_max_age=1000)
    assert read is not None
    assert read.written_at is not None
    # Up to the milliseconds that a marker keeps, and however long the request took.
    assert began - asks_for - 0.002 <= read.written_at <= time.time() - asks_for + 0.002


def test_m4_markers_under_all_names_are_merged(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting())
    old, new = token(100), token()
    assert side(send, application, old, old, old, old) == "slave"
    for place in range(4):
        tokens = [old] * 4
        tokens[place] = new
        assert side(send, application, *tokens) == "master"


def test_m4_two_cookies_of_the_same_name_are_both_read(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting())  # two cookies of one name: of two paths, or of two domains
    for tokens in ((token(), "broken"), ("broken", token()), (token(100), token())):
        cookie = "; ".join(f"just_updated={each}" for each in tokens)
        assert send(application, cookie=cookie).body == b"master"


def test_m4_a_marker_is_found_among_other_cookies(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting())
    for cookie in (
        f"a=1; just_updated_2={token()}; b=2",
        f"a=1;just_updated={token()}",
        f'a="x;y"; just_updated="{token()}"',
        f"broken; =; just_updated={token()}; ;;",
        f"umlaut=\xc3\xa4\xe4; just_updated={token()}",
        f"far=\u20ac; just_updated={token()}",
    ):
        assert send(application, cookie=cookie).body == b"master"


# The end of a marker, and cookies that are ignored


def test_m3_a_marker_that_is_too_old_is_ignored_even_if_the_client_sends_the_cookie(
    send: SendRequest, wrap: Wrap, token: Token
) -> None:
    application = wrap(redirecting())
    assert side(send, application, token(8)) == "master"
    assert side(send, application, token(10.1)) == "slave"
    assert side(send, application, token(1e6)) == "slave"
    longer = wrap(redirecting(), cookie_max_age=100)
    assert side(send, longer, token(98)) == "master"
    assert side(send, longer, token(100.1)) == "slave"


def test_m2_the_server_checks_the_age_of_a_marker(send: SendRequest, wrap: Wrap, token: Token) -> None:
    # The cookie was set under another configuration.
    assert side(send, wrap(redirecting(), cookie_max_age=1), token(1.1)) == "slave"


def test_m2_a_marker_up_to_a_minute_in_the_future_counts_as_now(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting())
    assert side(send, application, token(-58)) == "master"
    assert side(send, application, token(-61.5)) == "slave"
    assert side(send, application, token(-1e9)) == "slave"


def test_m2_old_secrets_are_accepted_and_the_newest_signs(send: SendRequest, wrap: Wrap, token: Token) -> None:
    application = wrap(redirecting(), ["new", "old", b"oldest"])
    for secret in ("new", "old", "oldest", b"oldest"):
        assert side(send, application, token(secret=secret)) == "master"
    made = morsel(send(application, "POST")).value
    assert side(send, wrap(redirecting(), "new"), made) == "master"
    assert side(send, wrap(redirecting(), ["newer", "new"]), made) == "master"
    assert side(send, wrap(redirecting(), ["old", "oldest"]), made) == "slave"


@pytest.mark.parametrize(
    "secrets",
    ["new", b"new", ["new"], ("new",), iter(["new"])],
    ids=["text", "bytes", "list", "tuple", "iterator"],
)
def test_secrets_can_be_text_bytes_or_a_list(send: SendRequest, wrap: Wrap, token: Token, secrets: Any) -> None:
    assert side(send, wrap(redirecting(), secrets), token(secret="new")) == "master"


def test_m5_forged_markers_are_ignored(send: SendRequest, wrap: Wrap, secret: str, token: Token) -> None:
    good, other = token(0), token(1)
    payload, signature = good.split(".")
    now = time.time()
    for forged in (
        token(secret="another secret"),
        token(secret=secret + "x"),
        URLSafeSerializer(secret).dumps({"t": now}),  # without the salt: signed for something else
        URLSafeSerializer(secret, salt="replswitch.marker").dumps({"t": now}),  # with another hash
        URLSafeSerializer("", salt="replswitch.marker").dumps({"t": now}),
        payload,
        f"{payload}.",
        f".{signature}",
        f"{payload}.{other.split('.')[1]}",
        f"{payload}.{signature[:-1]}",
        f"{payload}.{signature[1:]}",
        f"{payload[1:]}.{signature}",
        f"{payload}x.{signature}",
        f"{good}.{good}",
        f".{good}",
        good.swapcase(),
        good[::-1],
        "true",
        "1",
        "a.b.c",
        "....",
        "",
    ):
        assert side(send, wrap(redirecting()), forged) == "slave", forged
    assert side(send, wrap(redirecting()), good) == "master"


@pytest.fixture
def signed(secret: str) -> Callable[[object], str]:
    """Signs any payload as a marker, like another version, or a person with the secret."""
    serializer = URLSafeSerializer(
        secret, salt="replswitch.marker", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
    )
    assert MarkerSigner(secret).read([str(serializer.dumps({"t": 5}))], now=5, max_age=1, position_max_age=1) == Marker(
        5.0
    )
    return lambda payload: str(serializer.dumps(payload))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        1,
        "t",
        [],
        {},
        ["t"],
        {"T": 1},
        {"t": None},
        {"t": True},
        {"t": "1"},
        {"t": []},
        {"t": float("nan")},
        {"t": float("inf")},
        {"t": -float("inf")},
        {"t": 10**400},
        {"t": -(10**400)},
    ],
    ids=lambda payload: f"payload={payload!r}".replace("0" * 400, "e400"),
)
def test_m5_a_signed_text_that_is_no_marker_is_ignored(
    send: SendRequest, wrap: Wrap, secret: str, signed: Callable[[object], str], payload: object
) -> None:
    assert side(send, wrap(redirecting()), signed(payload)) == "slave"


def test_unknown_fields_of_a_marker_are_ignored(
    send: SendRequest, wrap: Wrap, secret: str, signed: Callable[[object], str]
) -> None:
    assert side(send, wrap(redirecting()), signed({"t": time.time(), "p": {"shop": "0-1-7"}})) == "master"


def test_m5_over_long_markers_are_ignored(
    send: SendRequest, wrap: Wrap, secret: str, signed: Callable[[object], str]
) -> None:
    def long(length: int) -> str:
        noise = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length)
        return signed({"t": time.time(), "x": "".join(noise)})

    short, over = long(3500), long(8000)
    assert len(short) <= MAX_LENGTH < len(over)
    assert side(send, wrap(redirecting()), short) == "master"
    assert side(send, wrap(redirecting()), over) == "slave"


def test_m4_over_long_markers_do_not_hide_a_valid_one(send: SendRequest, wrap: Wrap, token: Token) -> None:
    cookie = "; ".join(["just_updated=" + "x" * (MAX_LENGTH + 1)] * 10 + [f"just_updated_3={token()}"])
    assert send(wrap(redirecting()), cookie=cookie).body == b"master"


def test_m5_a_marker_nested_too_deep_is_ignored(send: SendRequest, wrap: Wrap, secret: str) -> None:
    deep = b"." + base64_encode(zlib.compress(b"[" * 200_000 + b"]" * 200_000))
    signer = Signer(secret, salt="replswitch.marker", key_derivation="hmac", digest_method=hashlib.sha256)
    token = signer.sign(deep).decode()
    assert len(token) <= MAX_LENGTH
    assert side(send, wrap(redirecting()), token) == "slave"
