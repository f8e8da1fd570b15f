"""The checks that ask the slaves; with ``manage.py check --database default`` and with ``migrate``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004 - Django's name
from django.db import connections

from django_replswitch.report import address, standings, switching_aliases
from django_replswitch.servers import servers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig

    from replswitch.report import Standing


@register(Tags.database, "replswitch")
def check_servers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Ask the slaves whether they are there, are slaves at all, and hold their user back from writing."""
    found: list[CheckMessage] = []
    for alias in switching_aliases():
        database = connections.settings[alias]
        wrapper: Any = connections[alias]
        if alias not in (databases or ()) or wrapper.driver.engine != "mysql" or not database.get("SLAVES"):
            continue
        servers = servers_of(database, alias)
        for server, slave in zip(servers.slaves, standings(alias)[1:], strict=True):
            # What has the master's address is reported by another check.
            if address(database, server) != address(database, servers.master):
                found += _check_slave(f'The slave {slave.server} of DATABASES["{alias}"]', slave)
    return found


def _check_slave(who: str, slave: Standing) -> list[CheckMessage]:
    if not slave.reachable:
        return [
            Warning(
                f"{who} cannot be asked how it is set up: {slave.problem}.",
                hint="Its reads go to the other slaves or to the master.",
                id="replswitch.W007",
            )
        ]
    if slave.is_master:
        return [
            Warning(
                f"{who} is the master itself, under another address: its reads do not leave the master.",
                hint="Look where that HOST leads.",
                id="replswitch.W008",
            )
        ]
    if slave.replication == "cluster":
        return []  # every node of Galera may be written to
    if not slave.read_only:
        return [
            Warning(
                f"{who} is not read_only: what any program writes there by mistake is lost to the master, and may "
                "stop replication.",
                hint="SET GLOBAL read_only = ON there, and read_only = ON in its configuration file.",
                id="replswitch.W009",
            )
        ]
    privilege = _passes_read_only(slave)
    if privilege is None:
        return []
    return [
        Warning(
            f"{who} is read_only, which does not hold for its user, who has {privilege}.",
            hint="Give the application a user with privileges on its own database only.",
            id="replswitch.W010",
        )
    ]


def _passes_read_only(slave: Standing) -> str | None:
    """Return the privilege by which a user may write to a slave that is read_only; None without one."""
    if slave.variables.get("super_read_only") == "ON" or slave.variables.get("read_only") == "NO_LOCK_NO_ADMIN":
        return None
    privileges = {"ALL PRIVILEGES", "READ_ONLY ADMIN", "SUPER", "CONNECTION_ADMIN"}
    if slave.is_mariadb:
        privileges.remove("CONNECTION_ADMIN")  # there it says something else
        version = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", slave.version or "")
        if version and (int(version[1]), int(version[2])) >= (10, 11):
            privileges.remove("SUPER")  # it had READ_ONLY ADMIN in it until then
    for grant in slave.grants:
        granted = re.match(r"GRANT (.+?) ON \*\.\* TO ", grant)
        if granted and (held := privileges.intersection(re.split(", ?", granted[1]))):
            return min(held)
    return None
