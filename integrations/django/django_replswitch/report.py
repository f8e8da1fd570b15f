"""Find out the state of an alias's servers, for the system checks and ``manage.py replswitch``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import load_backend

import replswitch.report
from django_replswitch.servers import merged, servers_of
from replswitch.report import TIMEOUT, Asked, names_without_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.engine.servers import Server
    from replswitch.report import ServerStatus


def switching_aliases() -> list[str]:
    """Return the aliases whose backend is one of ours, or derived from one of ours."""
    return [alias for alias, settings in connections.settings.items() if _switches(settings["ENGINE"])]


def _switches(engine: str) -> bool:
    try:
        return hasattr(load_backend(engine).DatabaseWrapper, "use_slave")
    except ImproperlyConfigured:
        return False  # Django reports this error when the alias is used


def statuses(alias: str, timeout: float | None = None) -> list[ServerStatus]:
    """Return the state of all servers of an alias, the master first. They are queried at the same time.

    Args:
        alias: the alias.
        timeout: how many seconds to wait for a connection, and for each answer. By default ``connect_timeout`` of the
            server's OPTIONS, or else `replswitch.report.TIMEOUT`.
    """
    return replswitch.report.statuses(asked_servers(alias), timeout)


def asked_servers(alias: str) -> list[Asked]:
    """Return the servers of an alias, the master first, as `replswitch.report.statuses` takes them."""
    wrapper: Any = connections[alias]
    servers = servers_of(wrapper.settings_dict, alias)
    unresolved = names_without_address(servers)
    return [*(_asked(wrapper, server) for server in (servers.master, *servers.slaves)), *unresolved]


def address(settings: Mapping[str, Any], server: Server) -> tuple[str, ...]:
    """Return the settings that decide to which server connections go. They include the user, because of proxies."""
    found = merged(server, settings)
    options = found.get("OPTIONS") or {}
    names = ("host", "hostaddr", "port", "unix_socket", "read_default_file", "read_default_group", "user")
    return (
        *(str(found.get(name) or "") for name in ("HOST", "NAME", "USER")),
        "" if options.get("unix_socket") else str(found.get("PORT") or 3306),
        *(str(options.get(name, "")) for name in (*names, "database", "service")),
    )


def _asked(wrapper: Any, server: Server) -> Asked:
    driver, params = wrapper.driver, wrapper.parameters_for_report(server)
    return Asked(
        server.state,
        server.name,
        partial(driver.open_for_report, params),
        driver.module.Error,
        address=address(wrapper.settings_dict, server),
        timeout=params.get("connect_timeout") or TIMEOUT,
        engine=driver.engine,
    )
