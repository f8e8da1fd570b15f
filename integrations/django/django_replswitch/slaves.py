"""The setting SLAVES of an alias: dictionaries of settings, or URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from replswitch import ConfigurationError
from replswitch.drivers.urls import option, parse_url, split_urls

#: The kind of server that each of our backends connects to.
_KINDS: Final = {"mysql": "mysql", "postgis": "postgresql", "postgresql": "postgresql", "sqlite3": "sqlite"}

# Functions that make settings from a URL set these to "" if the URL does not name them.
_PARTS: Final = ("HOST", "PORT", "NAME", "USER", "PASSWORD")


def slaves_of(settings: Mapping[str, Any], alias: str) -> list[Mapping[str, Any]]:
    """Return, for each slave of an alias, the settings in which the slave differs from the master.

    A dictionary with ``ENGINE`` was made from a URL, for instance by dj-database-url or django-environ. In it, an empty
    string means that the URL does not have this part, so the setting is left out.

    Raises:
        ImproperlyConfigured: SLAVES is not a list of dictionaries and URLs, or a URL is wrong.
    """
    where = f'DATABASES["{alias}"]["SLAVES"]'
    given = settings.get("SLAVES", ())
    if isinstance(given, str):
        given = split_urls(given)
    if not isinstance(given, list | tuple) or not all(isinstance(slave, Mapping | str) for slave in given):
        raise ImproperlyConfigured(
            f'{where} must be a list with a dictionary of settings or a URL for each slave: [{{"HOST": "slave1.db"}}].'
        )
    return [_slave(settings, slave, f"{where}[{number}]") for number, slave in enumerate(given)]


def _slave(settings: Mapping[str, Any], slave: Mapping[str, Any] | str, where: str) -> Mapping[str, Any]:
    if isinstance(slave, str):
        return _from_url(settings, slave, where)
    if "ENGINE" in slave:
        found = {key: value for key, value in slave.items() if key not in _PARTS or value != ""}
        return _without_our_options(found, where)
    return slave


def _without_our_options(slave: dict[str, Any], where: str) -> Mapping[str, Any]:
    """Return the settings with WEIGHT and RESOLVE, which a dictionary made from a URL has among its OPTIONS."""
    options = dict(slave.get("OPTIONS") or {})
    ours = {name: str(options.pop(name)) for name in ("weight", "resolve") if name in options}
    if not ours:
        return slave
    try:
        values = {name.upper(): option(name, text, where) for name, text in ours.items()}
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from None
    del slave["OPTIONS"]
    return {**slave, **values, **({"OPTIONS": options} if options else {})}


def _from_url(settings: Mapping[str, Any], url: str, where: str) -> Mapping[str, Any]:
    engine = str(settings.get("ENGINE", ""))
    try:
        parts = parse_url(url, where)
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from None
    if _KINDS.get(engine.rpartition(".")[2], parts.engine) != parts.engine:
        raise ImproperlyConfigured(
            f'{where} is a URL of {parts.engine}, but the ENGINE of the alias is "{engine}". All servers of an alias'
            " must be of one kind."
        )
    options = dict(parts.options)
    found = {
        "HOST": parts.host,
        "PORT": parts.port,
        "NAME": parts.database,
        "USER": parts.user,
        "PASSWORD": parts.password,
        "WEIGHT": options.pop("weight", ""),
        "RESOLVE": options.pop("resolve", ""),
        "OPTIONS": {**settings.get("OPTIONS", {}), **options} if options else "",
    }
    return {key: value for key, value in found.items() if value != ""}
