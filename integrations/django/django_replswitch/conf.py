"""The setting ``REPLSWITCH``: a dictionary with the options of replswitch, in capitals."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from replswitch import ConfigurationError
from replswitch.checking import refuse_unknown
from replswitch.engine.options import DatabaseOptions
from replswitch.request.options import RequestOptionNames, RequestOptions, request_options
from replswitch.request.policy import RequestPolicy

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
            raise ConfigurationError('It must be a dictionary of options: {"COOKIE_MAX_AGE": 30}.')
        refuse_unknown("option", given, NAMES)
        requests = {_OF_REQUESTS[name]: value for name, value in given.items() if name in _OF_REQUESTS}
        databases = {_OF_DATABASES[name]: value for name, value in given.items() if name in _OF_DATABASES}
        return request_options(requests), DatabaseOptions(**databases)
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"settings.REPLSWITCH: {error}") from error


@lru_cache(maxsize=1)
def request_policy() -> RequestPolicy:
    """Return the policy of the project's requests. SECRET_KEY signs its markers; the fallbacks are accepted too."""
    return RequestPolicy(configured()[0], [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"REPLSWITCH", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        request_policy.cache_clear()


setting_changed.connect(_forget)
