"""The options of requests, by the one name that they have in every binding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from replswitch.checking import is_number, refuse_unknown, require

# No cookie lives longer: RFC 6265bis, section 5.5.
_LONGEST = 400 * 24 * 60 * 60

_ATTRIBUTES = {
    "comment", "domain", "expires", "httponly", "max-age", "partitioned", "path", "samesite", "secure", "version",
}  # fmt: skip

Secret = str | bytes | Iterable[str | bytes] | None
SameSite = Literal["Strict", "Lax", "None"]
Override = Callable[[Any], str | None]


class RequestOptionNames(TypedDict, total=False):
    """The same options as keyword arguments, for type checkers."""

    cookie_name: str
    enabled: bool
    cookie_max_age: float
    position_max_age: float
    cookie_domain: str | None
    cookie_path: str
    cookie_samesite: SameSite | None
    cookie_secure: bool | None
    override: Override | None
    header: bool
    debug_header: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """How requests are switched and marked.

    Attributes:
        cookie_name: the name of the marker's cookie.
        enabled: False sends everything to the master; markers are neither read nor set.
        cookie_max_age: seconds that a marker without a position holds; more than any lag to be expected.
        position_max_age: seconds that a marker with positions holds at most.
        cookie_domain: the cookie's Domain; None for the host that answers.
        cookie_path: the cookie's Path.
        cookie_samesite: ``"Strict"``, ``"Lax"``, ``"None"``; None leaves the attribute out.
        cookie_secure: True or False; None sets Secure on https.
        override: called with the request before its method decides; returns ``"master"``, ``"slave"`` or None.
        header: let the marker travel in the header ``Replswitch-Marker`` of requests and responses as well, for
            clients that keep no cookies.
        debug_header: add ``Replswitch: slave; server=slave1.db:3306; reason=method`` to responses.

    Raises:
        ConfigurationError: a value is of the wrong kind.
    """

    cookie_name: str = "just_updated"
    enabled: bool = True
    cookie_max_age: float = 10
    position_max_age: float = 3600
    cookie_domain: str | None = None
    cookie_path: str = "/"
    cookie_samesite: SameSite | None = "Lax"
    cookie_secure: bool | None = None
    override: Override | None = None
    header: bool = False
    debug_header: bool = False

    def __post_init__(self) -> None:
        for name, is_fine, wanted in _CHECKS:
            value = getattr(self, name)
            require(is_fine(value), name, value, wanted)
        require(
            not (self.cookie_samesite == "None" and self.cookie_secure is False),
            "cookie_secure",
            self.cookie_secure,
            'True or None where "cookie_samesite" is "None": browsers refuse such a cookie without Secure',
        )


# The characters that RFC 6265, section 4.1.1, allows in a cookie's name; RFC 2965 gave "$" in front a meaning.
_TOKEN = re.compile(r"(?!\$)[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

# Without those that would have to be quoted, which not every browser reads back.
_ATTRIBUTE = re.compile(r"[!#-+\--:<-\[\]-~]*")


def _is_cookie_name(name: Any) -> bool:
    return isinstance(name, str) and bool(_TOKEN.fullmatch(name)) and name.lower() not in _ATTRIBUTES


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_age(value: Any) -> bool:
    return is_number(value) and 0 < value <= _LONGEST


_AGE = f"a number of seconds above 0, and at most {_LONGEST} (400 days)"

# Each option with the check of its value, and what it must be.
_CHECKS: tuple[tuple[str, Callable[[Any], object], str], ...] = (
    (
        "cookie_name",
        _is_cookie_name,
        "letters, digits and !#$%&'*+-.^_`|~, without $ in front, and not the name of a cookie's attribute",
    ),
    ("enabled", _is_bool, "True or False"),
    ("header", _is_bool, "True or False"),
    ("debug_header", _is_bool, "True or False"),
    ("cookie_max_age", _is_age, _AGE),
    ("position_max_age", _is_age, _AGE),
    (
        "cookie_domain",
        lambda domain: domain is None or (isinstance(domain, str) and _ATTRIBUTE.fullmatch(domain)),
        'a domain such as "example.com", or None',
    ),
    (
        "cookie_path",
        lambda path: isinstance(path, str) and path.startswith("/") and _ATTRIBUTE.fullmatch(path),
        'a path such as "/"',
    ),
    (
        "cookie_samesite",
        lambda value: value in ("Strict", "Lax", "None", None),
        '"Strict", "Lax", "None", or None to leave it out',
    ),
    (
        "cookie_secure",
        lambda value: value is None or isinstance(value, bool),
        "True, False, or None for Secure on https",
    ),
    (
        "override",
        lambda value: value is None or callable(value),
        'a function of the request that returns "master", "slave" or None',
    ),
)


def request_options(given: Mapping[str, Any]) -> RequestOptions:
    """Make the options of what a user gave.

    Raises:
        ConfigurationError: a name is unknown or a value is of the wrong kind.
    """
    refuse_unknown("option", given, {field.name for field in fields(RequestOptions)})
    return RequestOptions(**given)
