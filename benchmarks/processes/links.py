"""The connections of the application, as the servers see them."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from replswitch.testing.servers import ServerPair

Link = tuple[int, int]
"""A server (``@@server_id``), and a connection to it (``CONNECTION_ID()``)."""

QUIET: Final = 1.0
"""Seconds in which no connection comes or goes, until the application counts as idle."""

PATIENCE: Final = 15.0
"""Seconds after which a connection counts in any case."""


def server_ids(pair: ServerPair) -> dict[str, int]:
    """Return the id of each server of the pair."""
    return {name: rows(pair, name, "SELECT @@server_id")[0] for name in pair.names}


def open_links(pair: ServerPair, ids: dict[str, int]) -> frozenset[Link]:
    """Return the connections of the application's user that are open (``SHOW PROCESSLIST``)."""
    sql = f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{pair.user}'"
    return frozenset((server, link) for name, server in ids.items() for link in rows(pair, name, sql))


def links_when_idle(pair: ServerPair, ids: dict[str, int]) -> frozenset[Link]:
    """Wait until no connection comes or goes, and return those that are open."""
    found, since = open_links(pair, ids), time.monotonic()
    until = since + PATIENCE
    while time.monotonic() < min(since + QUIET, until):
        time.sleep(0.1)
        now = open_links(pair, ids)
        if now != found:
            found, since = now, time.monotonic()
    return found


def rows(pair: ServerPair, name: str, sql: str) -> list[int]:
    """Return the numbers that a query yields, asked as root."""
    with closing(pair.admin(name)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return [int(number) for (number,) in cursor.fetchall()]
