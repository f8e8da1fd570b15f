"""The options of requests. An option has the same name in every binding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from inspect import iscoroutinefunction, signature
from typing import Any, Final, Literal, TypedDict

from replswitch.checking import is_number, refuse_unknown, require
from replswitch.errors import ConfigurationError

#: The longest lifetime of a cookie, in seconds: RFC 6265bis, section 5.5.
LONGEST_AGE: Final = 400 * 24 * 60 * 60

_ATTRIBUTES = {
    "comment", "domain", "expires", "httponly", "max-age", "partitioned", "path", "samesite", "secure", "version",
}  # fmt: skip

Secret = str | bytes | Iterable[str | bytes] | None
"""A key that signs markers, or several with the newest first. None is refused."""

SameSite = Literal["Strict", "Lax", "None"]
Override = Callable[[Any], str | None]
Enabled = bool | Callable[[Any], bool] | Callable[[], bool]
Rollout = float | Callable[[Any], float] | Callable[[], float]


class RequestOptionNames(TypedDict, total=False):
    """The options of `RequestOptions` as keyword arguments, for type checkers."""

    cookie_name: str
    enabled: Enabled
    rollout: Rollout
    cookie_max_age: float
    position_max_age: float
    cookie_domain: str | None
    cookie_path: str
    cookie_samesite: SameSite | None
    cookie_secure: bool | None
    override: Override | None
    replay: bool
    header: bool
    debug_header: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """How requests are switched and marked.

    Attributes:
        cookie_name: the name of the marker's cookie.
        enabled: False sends everything to the master; markers are neither read nor set. A function of the request
            decides for each request, and markers are read and set in any case, so that visitors see their own writes
            when it returns True again.
        rollout: the share of the visitors whose reads in slave state go to slaves, from 0 to 1, or a function of the
            request that returns it; the function may also return True or False for the visitor. The other visitors
            read in slave state over a read-only connection to the master (R6).
        cookie_max_age: seconds for which a marker without a position is valid; more than the largest expected lag.
        position_max_age: the longest time, in seconds, for which a marker with positions is valid.
        cookie_domain: the cookie's Domain; None for the host that responds.
        cookie_path: the cookie's Path.
        cookie_samesite: ``"Strict"``, ``"Lax"``, ``"None"``; None leaves the attribute out.
        cookie_secure: True or False; None sets Secure on https.
        override: called with the request; returns ``"master"``, ``"slave"``, or None to let the HTTP method decide.
        replay: run a GET or HEAD again on the master if a write in it could not be moved there, and begin later
            requests to its endpoint on the master (R5).
        header: send and accept the marker in the header ``Replswitch-Marker`` as well, for clients that keep no
            cookies.
        debug_header: add ``Replswitch: slave; server=slave1.db:3306; reason=method`` to responses.

    Raises:
        ConfigurationError: a value is of the wrong kind.
    """

    cookie_name: str = "just_updated"
    enabled: Enabled = True
    rollout: Rollout = 1
    cookie_max_age: float = 10
    position_max_age: float = 3600
    cookie_domain: str | None = None
    cookie_path: str = "/"
    cookie_samesite: SameSite | None = "Lax"
    cookie_secure: bool | None = None
    override: Override | None = None
    replay: bool = True
    header: bool = False
    debug_header: bool = False

    def __post_init__(self) -> None:
        for name, wanted in _WANTED.items():
            value = getattr(self, name)
            if callable(value) and (iscoroutinefunction(value) or iscoroutinefunction(type(value).__call__)):
                raise ConfigurationError(
                    f'The function in the option "{name}" is asynchronous ("async def"). It must be a plain function,'
                    " because replswitch calls it before it starts the request."
                )
            require(_is_fine(name, value), name, value, wanted)
        is_refused = self.cookie_samesite == "None" and self.cookie_secure is False
        wanted = 'True or None where "cookie_samesite" is "None", because browsers refuse such a cookie without Secure'
        require(not is_refused, "cookie_secure", self.cookie_secure, wanted)


# The characters that RFC 6265, section 4.1.1, allows in a cookie's name; a leading "$" has a meaning in RFC 2965.
_TOKEN = re.compile(r"(?!\$)[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

# The characters of an attribute that needs no quotes. Not every browser reads quoted values back.
_ATTRIBUTE = re.compile(r"[!#-+\--:<-\[\]-~]*")


_AGE = f"a number of seconds above 0, and at most {LONGEST_AGE} (400 days)"

_WANTED = {
    "cookie_name": "letters, digits and !#$%&'*+-.^_`|~, without $ in front, and not the name of a cookie's attribute",
    "enabled": "True or False, or a function of the request that returns one of them",
    "rollout": "a number from 0 to 1, or a function of the request that returns such a number, True or False",
    "replay": "True or False",
    "header": "True or False",
    "debug_header": "True or False",
    "cookie_max_age": _AGE,
    "position_max_age": _AGE,
    "cookie_domain": 'a domain such as "example.com", or None',
    "cookie_path": 'a path such as "/"',
    "cookie_samesite": '"Strict", "Lax", "None", or None to leave it out',
    "cookie_secure": "True, False, or None for Secure on https",
    "override": 'a function of the request that returns "master", "slave" or None',
}


def _is_fine(name: str, value: Any) -> object:
    if value is None:
        return name in {"cookie_domain", "cookie_samesite", "cookie_secure", "override"}
    match name:
        case "cookie_name":
            return isinstance(value, str) and _TOKEN.fullmatch(value) and value.lower() not in _ATTRIBUTES
        case "cookie_max_age" | "position_max_age":
            return is_number(value) and 0 < value <= LONGEST_AGE
        case "cookie_domain":
            return isinstance(value, str) and _ATTRIBUTE.fullmatch(value)
        case "cookie_path":
            return isinstance(value, str) and value.startswith("/") and _ATTRIBUTE.fullmatch(value)
        case "cookie_samesite":
            return value in ("Strict", "Lax", "None")
        case "enabled" | "rollout" if callable(value):
            return takes_request(value) or takes_request(value, 0)
        case "rollout":
            return is_number(value) and 0 <= value <= 1
        case "override":
            return callable(value)
        case _:
            return isinstance(value, bool)


def takes_request(function: Callable[..., Any], number: int = 1) -> bool:
    """Return whether a function can be called with this number of arguments, by default one, which is the request."""
    try:
        signature(function).bind(*range(number))
    except TypeError:
        return False
    except ValueError:  # it is written in C, without a signature
        return True
    return True


def request_options(given: Mapping[str, Any]) -> RequestOptions:
    """Make the options from the values that a user has given.

    Raises:
        ConfigurationError: a name is unknown or a value is of the wrong kind.
    """
    refuse_unknown("option", given, {field.name for field in fields(RequestOptions)})
    return RequestOptions(**given)
