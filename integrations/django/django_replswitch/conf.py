"""The setting ``REPLSWITCH``: the options of replswitch in capitals."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from replswitch import ConfigurationError
from replswitch.options import RequestOptionNames, refuse_unknown, request_options
from replswitch.request import RequestPolicy

#: The names that ``REPLSWITCH`` may have.
NAMES: Final = frozenset(name.upper() for name in RequestOptionNames.__annotations__) | {"ON_SLAVE_WRITE"}


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
        on_slave_write = given.get("ON_SLAVE_WRITE", "master")
        if on_slave_write not in ("master", "error"):
            raise ConfigurationError(f'"ON_SLAVE_WRITE" is {on_slave_write!r}. It must be "master" or "error".')
        request_options({name.lower(): value for name, value in given.items() if name != "ON_SLAVE_WRITE"})
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"settings.REPLSWITCH: {error}") from error
    return given


@lru_cache(maxsize=1)
def request_policy() -> RequestPolicy:
    """Return the policy of the project's requests; its markers are signed with SECRET_KEY and its fallbacks."""
    options = {name.lower(): value for name, value in configured().items() if name != "ON_SLAVE_WRITE"}
    return RequestPolicy(request_options(options), [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])


def moves_writes() -> bool:
    """Say whether a write in slave state is moved to the master: ``ON_SLAVE_WRITE``."""
    return bool(getattr(settings, "REPLSWITCH", {}).get("ON_SLAVE_WRITE", "master") == "master")


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"REPLSWITCH", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        request_policy.cache_clear()


setting_changed.connect(_forget)
