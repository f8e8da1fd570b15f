"""The servers that are asked, and how each is reached."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.connection import Connection
    from replswitch.drivers import Raw
    from replswitch.links import LinkPool
    from replswitch.servers import Server
    from replswitch.state import State

#: Seconds for a server to let us in, and to answer.
TIMEOUT: Final = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is asked.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        open: returns a new DB-API connection of sqlite3, or of a driver of MariaDB and MySQL, within so many seconds.
            What it raises is told of; a `replswitch.ReplSwitchError` in its own words alone.
        error: the root of the driver's errors.
        address: what decides where its connections lead: a slave that has the master's is the master itself, whatever
            the server says. None where nobody knows.
        timeout: seconds for it to let us in, and to answer, where nobody asks for other ones.
    """

    state: State
    name: str
    open: Callable[[float], Raw] = field(repr=False)  # there may be a password in it
    error: type[Exception]
    address: object = field(default=None, repr=False)  # likewise
    timeout: float = TIMEOUT


def servers_of(connection: Connection) -> list[Asked]:
    """Return the servers of a connection that `replswitch.connect` made; the master comes first."""
    return [_asked(server) for server in (connection.servers.master, *connection.servers.slaves)]


def time_limits(timeout: float) -> dict[str, int]:
    """Return the settings by which the drivers of MariaDB and MySQL give up after so many seconds."""
    seconds = math.ceil(timeout)
    return {"connect_timeout": seconds, "read_timeout": seconds}


def _asked(server: Server) -> Asked:
    links = server.links
    return Asked(server.state, server.name, partial(_open, links), links.driver.module.Error, links.settings)


def _open(links: LinkPool, timeout: float) -> Raw:
    limits = {} if links.driver.module is sqlite3 else time_limits(timeout)
    return links.driver.open({**links.settings, **limits}, read_only=True)
