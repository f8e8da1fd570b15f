"""The setting ``REPLSWITCH``: the options of replswitch in capitals."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from replswitch import ConfigurationError
from replswitch.checking import refuse_unknown
from replswitch.engine.options import DatabaseOptions
from replswitch.request.options import RequestOptionNames, request_options
from replswitch.request.policy import RequestPolicy

_REQUEST: Final = frozenset(name.upper() for name in RequestOptionNames.__annotations__)
_DATABASE: Final = frozenset(field.name.upper() for field in fields(DatabaseOptions))

#: The names that ``REPLSWITCH`` may have.
NAMES: Final = _REQUEST | _DATABASE


def configured() -> dict[str, Any]:
    """Return ``REPLSWITCH``, checked.

    Raises:
        ImproperlyConfigured: a name is unknown or a value is of the wrong kind.
    """
    given = getattr(settings, "REPLSWITCH", {})
    try:
        if not isinstance(given, dict):
            raise ConfigurationError('It must be a dictionary of options: {"COOKIE_MAX_AGE": 30}.')
        refuse_unknown("option", given, NAMES)
        request_options(_only(_REQUEST, given))
        DatabaseOptions(**_only(_DATABASE, given))
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"settings.REPLSWITCH: {error}") from error
    return given


@lru_cache(maxsize=1)
def request_policy() -> RequestPolicy:
    """Return the policy of the project's requests; its markers are signed with SECRET_KEY and its fallbacks."""
    options = request_options(_only(_REQUEST, configured()))
    return RequestPolicy(options, [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])


def database_options() -> DatabaseOptions:
    """Return how the project's databases are served."""
    return DatabaseOptions(**_only(_DATABASE, configured()))


def _only(names: frozenset[str], given: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in given.items() if name in names}


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"REPLSWITCH", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        request_policy.cache_clear()


setting_changed.connect(_forget)
