"""The servers of an alias, as `replswitch.standing` asks them: for the system checks and ``manage.py replswitch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import load_backend

import replswitch.standing
from django_replswitch.backends.links import servers_of
from replswitch import ConfigurationError
from replswitch.standing import TIMEOUT, Asked, time_limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_replswitch.backends.links import Server
    from replswitch.standing import Standing


def switches(engine: str) -> bool:
    """Say whether a backend switches, be it ours or one that is made of it."""
    try:
        return hasattr(load_backend(engine).DatabaseWrapper, "use_slave")
    except ImproperlyConfigured:
        return False  # Django says so where the alias is used


def switching_aliases() -> list[str]:
    """Return the aliases whose backend switches."""
    return [alias for alias, settings in connections.settings.items() if switches(settings["ENGINE"])]


def standings(alias: str, timeout: float | None = None) -> list[Standing]:
    """Ask all servers of an alias at a time how they stand; the master comes first.

    Args:
        alias: the alias.
        timeout: seconds for a server to let us in, and to answer; ``connect_timeout`` of its OPTIONS by default,
            or else `replswitch.standing.TIMEOUT`.
    """
    return replswitch.standing.standings(asked_servers(alias), timeout)


def asked_servers(alias: str) -> list[Asked]:
    """Return the servers of an alias; the master comes first."""
    connection = connections[alias]
    master, slaves = servers_of(connection.settings_dict, alias)
    return [_asked(connection, server) for server in (master, *slaves)]


def address(settings: Mapping[str, Any], server: Server) -> tuple[str, ...]:
    """Return what decides where the connections to a server lead, and as whom (a proxy may route by that)."""
    merged = server.merged(settings, settings["NAME"])
    options = merged.get("OPTIONS") or {}
    names = ("host", "port", "unix_socket", "read_default_file", "read_default_group", "user", "database")
    return (
        *(str(merged.get(name) or "") for name in ("HOST", "NAME", "USER")),
        str(merged.get("PORT") or 3306),
        *(str(options.get(name, "")) for name in names),
    )


def _asked(connection: BaseDatabaseWrapper, server: Server) -> Asked:
    settings = connection.settings_dict
    # A wrapper for one server alone: it connects in the thread that asks, and to nothing else.
    own: Any = type(connection)({**server.merged(settings, settings["NAME"]), "SLAVES": ()}, connection.alias)
    params = own.get_connection_params()

    def open_mysql(timeout: float) -> Any:
        params.pop("database", None)  # in a test run a slave may not have it yet
        return own.get_new_connection(params | time_limits(timeout))

    def open_sqlite(timeout: float) -> Any:
        name = str(params["database"])
        if not (own.is_in_memory_db() or name.startswith("file:") or Path(name).exists()):
            raise ConfigurationError("there is no such file")  # which SQLite would make
        return own.get_new_connection(params)

    return Asked(
        server.state,
        server.name,
        open_mysql if connection.vendor == "mysql" else open_sqlite,
        own.Database.Error,
        address(settings, server),
        params.get("connect_timeout") or TIMEOUT,
    )
