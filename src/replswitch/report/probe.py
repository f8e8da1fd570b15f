"""Query all servers of a database in parallel."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from replswitch.decision import SLAVE
from replswitch.errors import ReplSwitchError
from replswitch.report.mysql import ask_mysql
from replswitch.report.postgresql import ask_postgresql
from replswitch.report.status import Asked, ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replswitch.connect.connection import Connection
    from replswitch.engine.servers import Server, Servers

# Seconds to wait after the time-out, so that the driver itself can report the time-out.
_GRACE: Final = 0.5


def servers_of(connection: Connection) -> list[Asked]:
    """Return the servers of a connection that `replswitch.connect` made; the master comes first."""
    servers = connection.servers
    unresolved = names_without_address(servers)
    return [_asked(servers.master), *map(_asked, servers.slaves), *unresolved]


def names_without_address(servers: Servers) -> list[Asked]:
    """Look up the host names of slaves (F7). Return an entry of the report for each name without a known address.

    Args:
        servers: the servers of the database.
    """
    servers.look_up()
    return [Asked(SLAVE, name, partial(_fail, error), Exception) for name, error in servers.unresolved()]


def _fail(error: Exception, _: float) -> Any:
    raise error


def _asked(server: Server) -> Asked:
    driver, settings = server.source.driver, server.source.settings
    opener = partial(driver.open_for_report, settings)
    return Asked(server.state, server.name, opener, driver.module.Error, settings, engine=driver.engine)


def statuses(servers: Sequence[Asked], timeout: float | None = None) -> list[ServerStatus]:
    """Query the state of all servers of a database in parallel.

    Args:
        servers: the master first.
        timeout: seconds for a server to accept the connection, and to answer; by default, its own `Asked.timeout`.

    Returns:
        the states of the servers, in the same order. A server that does not answer is in the list, too.
    """
    found = [ServerStatus(server.state, server.name) for server in servers]
    seconds = [timeout or server.timeout for server in servers]
    # They are daemons, because a server that never answers must not keep the program from ending.
    asking = [Thread(target=_ask, args=each, daemon=True) for each in zip(servers, found, seconds, strict=True)]
    for thread in asking:
        thread.start()
    began = time.monotonic()
    for number, (server, thread) in enumerate(zip(servers, asking, strict=True)):
        thread.join(max(0, began + seconds[number] + _GRACE - time.monotonic()))
        if thread.is_alive():
            problem = f"no answer within {seconds[number]:g} s"
            found[number] = ServerStatus(server.state, server.name, problem=problem)
    _compare(servers, found)
    return found


def _ask(server: Asked, status: ServerStatus, timeout: float) -> None:
    try:
        with closing(server.open(timeout)) as raw:
            _QUESTIONS.get(server.engine, _ask_nothing)(raw, server, status)
    except ReplSwitchError as error:
        status.problem = str(error)
    except Exception as error:  # noqa: BLE001 - every error of a server is reported
        status.problem = f"{'a query failed' if status.reachable else 'no connection'}: {_words(error)}"


def _words(error: Exception) -> str:
    return f"{error.args[1]} ({error.args[0]})" if len(error.args) > 1 else str(error)


def _ask_nothing(raw: Any, server: Asked, status: ServerStatus) -> None:
    status.reachable = True
    status.note = "replswitch does not know what to query on a server of this kind"


def _ask_sqlite(raw: Any, server: Asked, status: ServerStatus) -> None:
    """Query the file. It has no replication status."""
    raw.execute("PRAGMA schema_version").close()  # the first statement that reads the file
    status.reachable = True
    files = {name: file for _, name, file in raw.execute("PRAGMA database_list")}
    if files.get("main"):
        status.variables = {"file": files["main"]}
    status.version = raw.execute("SELECT sqlite_version()").fetchone()[0]


#: The function that queries each kind of server.
_QUESTIONS: Final[dict[str, Callable[[Any, Asked, ServerStatus], None]]] = {
    "mysql": ask_mysql,
    "postgresql": ask_postgresql,
    "sqlite": _ask_sqlite,
}


def _compare(servers: Sequence[Asked], found: Sequence[ServerStatus]) -> None:
    """Record a master that refuses writes, and slaves that are the master itself."""
    master, *slaves = found
    if master.reachable and master.read_only:
        master.problem = "it is read_only, so it refuses writes"
    for server, slave in zip(servers[1:], slaves, strict=True):
        same_address = server.address is not None and server.address == servers[0].address
        same_server = bool(slave.identity) and slave.identity == master.identity
        slave.is_master = slave.reachable and (same_address or same_server)
        if slave.is_master:
            slave.replication, slave.behind, slave.problem, slave.note = None, None, None, "it is the master itself"
