"""Wrong arguments are refused at once. The message has the value, the place and the cure."""

from __future__ import annotations

from functools import partial
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import pytest

from replswitch import ConfigurationError, Switch
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.test_wsgi.conftest import SendRequest, Wrap


def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("302 Found", [("Content-Type", "text/plain"), ("Location", "/")])
    return [Switch().state.encode()]


def options(name: str, value: object) -> dict[str, Any]:
    """One option, of whatever kind: what the type checker would refuse."""
    return {name: value}


def accepted(name: str, value: object) -> WSGIApplication | None:
    """The page inside the middleware with this option; None if the middleware correctly refuses it."""
    try:
        return ReplicationMiddleware(page, "secret", **options(name, value))
    except ConfigurationError as error:
        message = str(error)
    assert message.startswith(f'The option "{name}" is {value!r}. It must be '), message
    return None


@pytest.mark.parametrize("secret", [None, "", b"", [], [""], [b"", "good"], ()])
def test_an_empty_secret_is_an_error_that_says_what_to_do(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no secret .*Give `secret` a long random string, the same"):
        ReplicationMiddleware(page, secret)


def test_a_middleware_without_the_secret_argument_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"There is no secret"):
        ReplicationMiddleware(page)


@pytest.mark.parametrize("secret", [42, 4.2, True, [42], [None], object()])
def test_a_secret_of_a_wrong_type_is_refused(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"secret"):
        ReplicationMiddleware(page, secret)


def test_an_error_about_the_secret_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ReplicationMiddleware(page, ["what nobody may know", ""])
    assert "what nobody may know" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cookie_nam", "cookie_name"),
        ("cookiename", "cookie_name"),
        ("COOKIE_NAME", None),
        ("cookie_maxage", "cookie_max_age"),
        ("max_age", "cookie_max_age"),
        ("samesite", "cookie_samesite"),
        ("debug_headers", "debug_header"),
        ("enable", "enabled"),
        ("overide", "override"),
        ("x", None),
    ],
)
def test_an_unknown_option_is_refused_with_a_suggestion(name: str, meant: str | None) -> None:
    hint = f'Did you mean "{meant}"?' if meant else "The known names are: cookie_domain, cookie_max_age, cookie_name, "
    with pytest.raises(ConfigurationError) as raised:
        ReplicationMiddleware(page, "secret", **options(name, 1))
    assert str(raised.value).startswith(f'Unknown option "{name}". {hint}')


def with_two_arguments(one: object, two: object) -> bool:
    return True


WRONG: dict[str, list[object]] = {
    "cookie_name": ["", None, 1, b"name", "two words", "semi;colon", "comma,", "equals=", "umlaut\u00e4", "line\n", []],
    "enabled": ["true", "", None, 0, 1, [], with_two_arguments],
    "rollout": [-0.1, 1.1, 2, "0.5", "", None, True, False, float("nan"), [], with_two_arguments],
    "header": ["on", None, 1],
    "replay": ["on", None, 1],
    "debug_header": ["on", None, 1],
    "cookie_max_age": [0, -1, "10", None, True, float("nan"), float("inf"), [], 0.0],
    "position_max_age": [0, -1, "10", None, True, float("nan"), float("inf"), [], 0.0],
    "cookie_domain": [1, b"example.com", "example.com; x", "line\n", "umlaut\u00e4", [], True],
    "cookie_path": ["", None, "no-slash", "/semi;colon", "/line\n", "/umlaut\u00e4", b"/", 1],
    "cookie_samesite": ["lax", "none", "", True, 1, b"Lax", []],
    "cookie_secure": ["yes", "", 2, []],
    "override": ["master", 1, True, [], {}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_an_option_of_a_wrong_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ReplicationMiddleware(page, "secret", **options(name, value))
    message = str(raised.value)
    assert message.startswith(f'The option "{name}" is {value!r}. It must be ')
    assert len(message) > len(f'The option "{name}" is {value!r}. It must be ') + 5


async def asynchronous(request: object) -> bool:
    return True


class Asynchronous:
    async def __call__(self, request: object) -> bool:
        return True


@pytest.mark.parametrize("name", ["enabled", "rollout", "override"])
@pytest.mark.parametrize(
    "function",
    [asynchronous, partial(asynchronous, None), Asynchronous()],
    ids=["coroutine function", "partial of a coroutine function", "object with an asynchronous call"],
)
def test_an_asynchronous_function_as_an_option_is_refused(name: str, function: object) -> None:
    with pytest.raises(
        ConfigurationError, match=f'The function in the option "{name}" is asynchronous.*plain function'
    ):
        ReplicationMiddleware(page, "secret", **options(name, function))


def test_every_option_has_a_test_of_wrong_types() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ReplicationMiddleware(page, "secret", zzz=1)  # type: ignore[call-arg]  # that is the point
    known = str(raised.value).partition("The known names are: ")[2].rstrip(".").split(", ")
    assert sorted(WRONG) == sorted(known)


def test_same_site_none_without_secure_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'"cookie_secure" is False.*where "cookie_samesite" is "None"'):
        ReplicationMiddleware(page, "secret", cookie_samesite="None", cookie_secure=False)


@pytest.mark.parametrize(
    "name", ["$name", "$", "path", "Domain", "max-age", "expires", "secure", "HttpOnly", "comment"]
)
def test_an_accepted_cookie_name_makes_a_readable_cookie(send: SendRequest, name: str) -> None:
    application = accepted("cookie_name", name)
    if application is None:
        return
    for _ in range(4):
        (cookie,) = send(application, "POST").cookies
        assert send(application, cookie=cookie.partition(";")[0]).body == b"master"


@pytest.mark.parametrize(
    "seconds",
    [10**6, 10**9, 10**12, 10**30, 10**400, 1e12, 1e300],
    ids=["10**6", "10**9", "10**12", "10**30", "10**400", "1e12", "1e300"],
)
def test_an_accepted_cookie_max_age_makes_a_cookie(send: SendRequest, seconds: float) -> None:
    application = accepted("cookie_max_age", seconds)
    if application is None:
        return
    (cookie,) = send(application, "POST").cookies
    assert send(application, cookie=cookie.partition(";")[0]).body == b"master"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *[("path", path) for path in ("/", "/shop", "/a b", "/a,b", '/a"b', "/a\\b", "/%7Eme/(1)+&$'*!:@~")],
        *[("domain", domain) for domain in ("example.com", ".example.com", "a b", " ", 'a"b', "a,b")],
    ],
)
def test_accepted_cookie_attributes_are_sent_unchanged(send: SendRequest, attribute: str, value: str) -> None:
    # A browser takes the octets as they are: RFC 6265, section 5.2. An escaped path matches no page, and then
    # the visitor misses his write.
    application = accepted(f"cookie_{attribute}", value)
    if application is None:
        return
    (cookie,) = send(application, "POST").cookies
    assert f"{attribute}={value}" in [
        part.partition("=")[0].lower() + "=" + part.partition("=")[2] for part in cookie.split("; ")
    ]


@pytest.mark.parametrize(
    "nonsense", ["Slave", "replica", "", 0, True, False, b"master", [], pytest.param(object(), id="object")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_override_that_returns_no_state_is_an_error(
    send: SendRequest, wrap: Wrap, nonsense: object, method: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        send(wrap(page, override=lambda request: nonsense), method)
    message = str(raised.value)
    assert message.startswith(
        f'The function in the option "override" returned {nonsense!r}. It must return "master", "slave", or None'
    )


def test_an_override_that_raises_raises_its_own_error(send: SendRequest, wrap: Wrap) -> None:
    def override(request: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        send(wrap(page, override=override))


def test_enabled_false_works_with_an_override_that_raises(send: SendRequest, wrap: Wrap) -> None:
    assert send(wrap(page, enabled=False, override=lambda request: "nonsense")).body == b"master"


@pytest.mark.parametrize("application", [None, "shop.wsgi:application", 1, [], {}])
def test_an_application_that_cannot_be_called_is_refused(application: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be called\. Give the application itself") as raised:
        ReplicationMiddleware(application, "secret")
    assert repr(application) in str(raised.value)


def test_correct_options_are_accepted(send: SendRequest, wrap: Wrap) -> None:
    application = wrap(
        page,
        cookie_name="a!#$%&'*+-.^_`|~9",
        enabled=True,
        cookie_max_age=0.5,
        cookie_domain=None,
        cookie_path="/shop/",
        cookie_samesite=None,
        cookie_secure=True,
        override=None,
        debug_header=False,
    )
    (cookie,) = send(application, "POST").cookies
    ((name, morsel),) = SimpleCookie(cookie).items()
    assert name.startswith("a!#$%&'*+-.^_`|~9")
    assert morsel["path"] == "/shop/"
