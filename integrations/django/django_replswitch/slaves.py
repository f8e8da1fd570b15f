"""The setting SLAVES of an alias: dictionaries of settings, or URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from replswitch import ConfigurationError
from replswitch.drivers.urls import has_port, option, parse_url, split_urls

#: The kind of server that each of our backends connects to.
_KINDS: Final = {"mysql": "mysql", "postgis": "postgresql", "postgresql": "postgresql", "sqlite3": "sqlite"}

# The names in OPTIONS that say where a server is.
_PLACES: Final = ("host", "hostaddr", "unix_socket")

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


def with_own(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an alias, overridden by those of a server.

    If the server has a host or a Unix socket of its own, those of the alias are left out. Otherwise a driver that gets
    both could connect to the master instead of the slave.

    Args:
        settings: the settings of the alias.
        own: the settings in which the server differs.
    """
    found = {**settings, **own}
    if own.get("HOST") and "OPTIONS" not in own and settings.get("OPTIONS"):
        found["OPTIONS"] = _without_place(settings["OPTIONS"])
    elif "HOST" not in own and (own.get("OPTIONS") or {}).get("unix_socket"):
        found["HOST"] = ""
    return found


def _without_place(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _PLACES}


def name_of(settings: Mapping[str, Any]) -> str:
    """Return the name of a server for messages: its Unix socket, its host with the port, or its NAME.

    Args:
        settings: all settings of the server.
    """
    host, port = str(settings.get("HOST") or ""), settings.get("PORT")
    socket = (settings.get("OPTIONS") or {}).get("unix_socket")
    if socket and host in {"", "localhost"}:
        return str(socket)
    if host:
        return f"{host}:{port}" if port and has_port(_kind(settings), host) else host
    return str(settings.get("NAME") or "localhost").rpartition("/")[2]


def _kind(settings: Mapping[str, Any]) -> str | None:
    return _KINDS.get(str(settings.get("ENGINE", "")).rpartition(".")[2])


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
    try:
        parts = parse_url(url, where)
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from None
    if (_kind(settings) or parts.engine) != parts.engine:
        raise ImproperlyConfigured(
            f'{where} is a URL of {parts.engine}, but the ENGINE of the alias is "{settings["ENGINE"]}". All servers of'
            " an alias must be of one kind."
        )
    options = dict(parts.options)
    inherited = settings.get("OPTIONS") or {}
    found = {
        "HOST": parts.host,
        "PORT": parts.port,
        "NAME": parts.database,
        "USER": parts.user,
        "PASSWORD": parts.password,
        "WEIGHT": options.pop("weight", ""),
        "RESOLVE": options.pop("resolve", ""),
        "OPTIONS": {**(_without_place(inherited) if parts.host else inherited), **options} if options else "",
    }
    return {key: value for key, value in found.items() if value != ""}
