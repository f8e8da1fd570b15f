"""The servers that are asked, and how each is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.connect.connection import Connection
    from replswitch.decision import State
    from replswitch.drivers import Raw
    from replswitch.engine.servers import Server

#: Seconds to connect to a server, and for its answer.
TIMEOUT: Final = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is asked.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        open: returns a new connection, within so many seconds. What it raises is reported; a
            `replswitch.ReplSwitchError` in its own words alone.
        error: the root of the driver's errors.
        address: what decides where its connections lead: a slave that has the master's is the master itself, whatever
            the server says. None where that is unknown.
        timeout: seconds to connect, and to answer, where no others are asked for.
        engine: the kind of server, `replswitch.drivers.Driver.engine`.
    """

    state: State
    name: str
    open: Callable[[float], Raw] = field(repr=False)  # there may be a password in it
    error: type[Exception]
    address: object = field(default=None, repr=False)  # likewise
    timeout: float = TIMEOUT
    engine: str = ""


def servers_of(connection: Connection) -> list[Asked]:
    """Return the servers of a connection that `replswitch.connect` made; the master comes first."""
    return [_asked(server) for server in (connection.servers.master, *connection.servers.slaves)]


def _asked(server: Server) -> Asked:
    driver, settings = server.source.driver, server.source.settings
    opener = partial(driver.open_for_report, settings)
    return Asked(server.state, server.name, opener, driver.module.Error, settings, engine=driver.engine)
