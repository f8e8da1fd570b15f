"""The options of requests and of databases, by the one name they have in every binding."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypedDict

from replswitch.errors import ConfigurationError

# No cookie lives longer: RFC 6265bis, section 5.5.
_LONGEST = 400 * 24 * 60 * 60

_ATTRIBUTES = {
    "comment",
    "domain",
    "expires",
    "httponly",
    "max-age",
    "partitioned",
    "path",
    "samesite",
    "secure",
    "version",
}

#: A read waits for a slave no longer than this, in seconds: the visitor waits too.
LONGEST_WAIT: Final = 60

#: A slave is tried again after this time, in seconds, at the latest.
LONGEST_DOWNTIME: Final = 3600

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
        # The characters that RFC 6265, section 4.1.1, allows in a cookie's name; RFC 2965 gave "$" in front a meaning.
        token = re.compile(r"(?!\$)[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
        # Without those that would have to be quoted, which not every browser reads back.
        attribute = re.compile(r"[!#-+\--:<-\[\]-~]*")
        _require(
            isinstance(self.cookie_name, str)
            and token.fullmatch(self.cookie_name)
            and self.cookie_name.lower() not in _ATTRIBUTES,
            "cookie_name",
            self.cookie_name,
            "letters, digits and !#$%&'*+-.^_`|~, without $ in front, and not the name of a cookie's attribute",
        )
        for name in ("enabled", "header", "debug_header"):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, value, "True or False")
        for name in ("cookie_max_age", "position_max_age"):
            value = getattr(self, name)
            _require(
                isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST,
                name,
                value,
                f"a number of seconds above 0, and at most {_LONGEST} (400 days)",
            )
        _require(
            self.cookie_domain is None
            or (isinstance(self.cookie_domain, str) and attribute.fullmatch(self.cookie_domain)),
            "cookie_domain",
            self.cookie_domain,
            'a domain such as "example.com", or None',
        )
        _require(
            isinstance(self.cookie_path, str)
            and self.cookie_path.startswith("/")
            and attribute.fullmatch(self.cookie_path),
            "cookie_path",
            self.cookie_path,
            'a path such as "/"',
        )
        _require(
            self.cookie_samesite in ("Strict", "Lax", "None", None),
            "cookie_samesite",
            self.cookie_samesite,
            '"Strict", "Lax", "None", or None to leave it out',
        )
        _require(
            self.cookie_secure is None or isinstance(self.cookie_secure, bool),
            "cookie_secure",
            self.cookie_secure,
            "True, False, or None for Secure on https",
        )
        _require(
            not (self.cookie_samesite == "None" and self.cookie_secure is False),
            "cookie_secure",
            self.cookie_secure,
            'True or None where "cookie_samesite" is "None": browsers refuse such a cookie without Secure',
        )
        _require(
            self.override is None or callable(self.override),
            "override",
            self.override,
            'a function of the request that returns "master", "slave" or None',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """How a database is served.

    Attributes:
        on_slave_write: what becomes of a write in slave state: ``"master"`` runs it there and logs a warning,
            ``"error"`` raises SlaveWriteError (S8).
        wait: seconds that a read may wait, once a scope, for a slave to reach what it must see, before the master
            serves it.
        downtime: seconds for which a slave that has failed is left alone, before one reader tries it again.
        max_lag: seconds; a slave further behind gets no reads. Measured every few seconds, beside the readers. None: no
            slave is too far behind for visitors who have nothing of their own to see.
        fallback: who serves reads when no slave is left: ``"master"``, or ``"error"`` raises NoServerError, so that
            dead slaves do not drown the master. Reads that must see what no slave has yet go to the master all the
            same.

    Raises:
        ConfigurationError: a value is of the wrong kind.
    """

    on_slave_write: Literal["master", "error"] = "master"
    wait: float = 0
    downtime: float = 10
    max_lag: float | None = None
    fallback: Literal["master", "error"] = "master"

    def __post_init__(self) -> None:
        for name in ("on_slave_write", "fallback"):
            value = getattr(self, name)
            _require(value in ("master", "error"), name, value, '"master" or "error"')
        for name, longest in (("wait", LONGEST_WAIT), ("downtime", LONGEST_DOWNTIME)):
            value = getattr(self, name)
            _require(
                isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= longest,
                name,
                value,
                f"a number of seconds from 0 to {longest}",
            )
        _require(
            self.max_lag is None
            or (isinstance(self.max_lag, int | float) and not isinstance(self.max_lag, bool) and self.max_lag > 0),
            "max_lag",
            self.max_lag,
            "a number of seconds above 0, or None",
        )


def request_options(given: Mapping[str, Any]) -> RequestOptions:
    """Make the options of what a user gave.

    Raises:
        ConfigurationError: a name is unknown or a value is of the wrong kind.
    """
    refuse_unknown("option", given, {field.name for field in fields(RequestOptions)})
    return RequestOptions(**given)


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known, and say which one may be meant.

    Raises:
        ConfigurationError: a name in ``given`` is not in ``known``.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"Known are: {', '.join(names)}."
            raise ConfigurationError(f'Unknown {what} "{name}". {hint}')


def _require(fine: object, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise ConfigurationError(f'The option "{name}" is {value!r}. It must be {wanted}.')
