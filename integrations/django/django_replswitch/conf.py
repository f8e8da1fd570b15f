"""The setting ``REPLSWITCH``: a dictionary with the options of replswitch, in capitals."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from replswitch import ConfigurationError
from replswitch.checking import refuse_unknown
from replswitch.engine.options import DatabaseOptions
from replswitch.request.options import RequestOptionNames, RequestOptions, request_options
from replswitch.request.policy import RequestPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable

    from django.http import HttpRequest

    from replswitch import State
    from replswitch.request.replay import SafeRequest
    from replswitch.scope import Scope

_OF_REQUESTS: Final = {name.upper(): name for name in RequestOptionNames.__annotations__}
_OF_DATABASES: Final = {field.name.upper(): field.name for field in fields(DatabaseOptions)}

#: The names of the options that ``REPLSWITCH`` may have.
NAMES: Final = {*_OF_REQUESTS, *_OF_DATABASES}


def configured() -> tuple[RequestOptions, DatabaseOptions]:
    """Return the options of the project's requests and of its databases, as ``REPLSWITCH`` sets them.

    Raises:
        ImproperlyConfigured: a name is unknown or a value is of the wrong kind.
    """
    given = getattr(settings, "REPLSWITCH", {})
    try:
        if not isinstance(given, dict):
            raise ConfigurationError('It must be a dictionary of options, such as {"COOKIE_MAX_AGE": 30}.')
        refuse_unknown("option", given, NAMES)
        requests = {_OF_REQUESTS[name]: value for name, value in given.items() if name in _OF_REQUESTS}
        databases = {_OF_DATABASES[name]: value for name, value in given.items() if name in _OF_DATABASES}
        return request_options(requests), DatabaseOptions(**databases)
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"settings.REPLSWITCH: {error}") from error


@lru_cache(maxsize=1)
def request_policy() -> RequestPolicy:
    """Return the policy of the project's requests. SECRET_KEY signs markers. SECRET_KEY_FALLBACKS are accepted, too."""
    return RequestPolicy(configured()[0], _secrets())


class _ConsumerPolicy(RequestPolicy):
    """The policy of consumers. The functions in the options get an HttpRequest. HTTP requests do not run again (R5).

    The reason is that middleware of Channels puts the session and the user into the connection scope before the request
    begins. A second try would still have the changes that the first try has made to the session and the user.
    """

    def override(self, request: Any, wanted: State | None = None) -> object:
        """Call the functions in the options with a request made from an ASGI connection scope."""
        return super().override(_http_request(request) if self.asks else None, wanted)

    def renew(self, scope: Scope, override: object = None, request: Any = None) -> None:
        """Begin the next message of a websocket; see `RequestPolicy.renew`."""
        super().renew(scope, override, _http_request(request) if self.asks else None)

    def _try(self, endpoint: Hashable, is_repeatable: bool) -> SafeRequest:
        """Do not let a request run again. If a write cannot be moved, the next request to the path uses the master."""
        return super()._try(endpoint, is_repeatable=False)


def _http_request(scope: dict[str, Any]) -> HttpRequest:
    """Return an HttpRequest for an ASGI connection scope; for a websocket, the GET of its handshake (RFC 6455)."""
    from django.core.handlers.asgi import ASGIRequest  # noqa: PLC0415 - the backends import this module very early

    return ASGIRequest({"method": "GET", **scope}, BytesIO())


@lru_cache(maxsize=1)
def consumer_policy() -> RequestPolicy:
    """Return the policy of consumers. It has no ``OVERRIDE``, because consumers choose their state in their code."""
    return _ConsumerPolicy(replace(configured()[0], override=None), _secrets())


def _secrets() -> list[str | bytes]:
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"REPLSWITCH", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        request_policy.cache_clear()
        consumer_policy.cache_clear()


setting_changed.connect(_forget)
