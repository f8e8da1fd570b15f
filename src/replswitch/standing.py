"""How the servers of a database stand, asked of themselves: for the commands and the checks of the bindings.

Each server is asked through a short connection of its own, outside the links that the application uses.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from replswitch.state import MASTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from replswitch.connection import Connection
    from replswitch.drivers import Driver, Raw
    from replswitch.state import State

#: Seconds for a server to let us in, and to answer.
TIMEOUT: Final = 5

# Seconds that the driver gets to say by itself that the time is over.
_GRACE: Final = 0.5

#: What is told of each server, in the order of a table's columns.
COLUMNS: Final = ("state", "server", "reachable", "version", "read_only", "replication", "behind")

# Not asked as @@name: a server that lacks one of them would refuse the whole statement.
_VARIABLES: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'read_only', 'super_read_only', 'innodb_read_only', "
    "'hostname', 'port', 'server_id', 'server_uuid', 'wsrep_on', 'aurora_version', 'group_replication_group_name')"
)
_IDENTITY: Final = ("hostname", "port", "server_id", "server_uuid", "file")
_CLUSTERS: Final = ("aurora_version", "group_replication_group_name")

_SEVERITY: Final = {"none": 0, "running": 1, "connecting": 2, "stopped": 3, "broken": 4}
_PROBLEMS: Final = {
    "connecting": "it does not reach its master",
    "stopped": "replication is stopped",
    "broken": "replication ended with an error",
}

# ER_SPECIFIC_ACCESS_DENIED_ERROR, ER_PARSE_ERROR.
_DENIED: Final = 1227
_UNKNOWN_STATEMENT: Final = 1064


class Asked(NamedTuple):
    """A server that is asked.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        open: returns a new DB-API connection of sqlite3, or of a driver of MariaDB and MySQL, within so many seconds.
        error: the root of the driver's errors.
    """

    state: State
    name: str
    open: Callable[[float], Raw]
    error: type[Exception]


@dataclass
class Standing:
    """How one server stands.

    Attributes:
        state: the state it serves.
        server: its name.
        reachable: it let us in.
        version: what it says of itself.
        read_only: whether it refuses ordinary users' writes; None where the database has no such option.
        replication: of a slave ``"running"``, ``"connecting"``, ``"stopped"``, ``"broken"`` (it ended with an error)
            or ``"none"`` (it follows nobody); ``"cluster"`` for Galera, Aurora and group replication, ``"unknown"``
            where we may not ask; None where there is nothing to replicate.
        behind: seconds; None where nobody knows.
        problem: what somebody should see to; None when all is well.
        note: what else there is to say.
        variables: what it is, in the server's own words.
    """

    state: State
    server: str
    reachable: bool = False
    version: str | None = None
    read_only: bool | None = None
    replication: str | None = None
    behind: int | None = None
    problem: str | None = None
    note: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """What no two servers have in common; empty where the database does not say."""
        return tuple(self.variables[name] for name in _IDENTITY if name in self.variables)

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB, and not MySQL."""
        return "mariadb" in (self.version or "").lower()

    def as_json(self) -> dict[str, Any]:
        """Return what a program may want to know."""
        return {name: getattr(self, name) for name in (*COLUMNS, "problem", "note")}

    def as_row(self) -> tuple[str, ...]:
        """Return what a person may want to know, under `COLUMNS`."""
        return (
            self.state,
            self.server,
            "yes" if self.reachable else "no",
            self.version or "-",
            "-" if self.read_only is None else "yes" if self.read_only else "no",
            self.replication or "-",
            "-" if self.behind is None else f"{self.behind} s",
        )


def standings(servers: Sequence[Asked], timeout: float = TIMEOUT) -> list[Standing]:
    """Ask all servers of a database at a time how they stand.

    Args:
        servers: the master first.
        timeout: seconds for a server to let us in, and to answer.
    """
    found = [Standing(server.state, server.name) for server in servers]
    # Daemons: a server that never answers must not keep the program from ending.
    asking = [Thread(target=_ask, args=(*each, timeout), daemon=True) for each in zip(servers, found, strict=True)]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + timeout + _GRACE
    for number, thread in enumerate(asking):
        thread.join(max(0, deadline - time.monotonic()))
        if thread.is_alive():
            problem = f"no answer within {timeout:g} s"
            found[number] = Standing(servers[number].state, servers[number].name, problem=problem)
    master, *slaves = found
    if master.reachable and master.read_only:
        master.problem = "it is read_only, so nobody can write"
    for slave in slaves:
        if slave.reachable and slave.identity and slave.identity == master.identity:
            slave.replication, slave.behind, slave.problem, slave.note = None, None, None, "it is the master itself"
    return found


def servers_of(connection: Connection) -> list[Asked]:
    """Return the servers of a connection that `replswitch.connect` made; the master comes first."""
    servers, driver = connection._servers, connection._driver
    return [
        Asked(server.state, server.name, partial(_open, driver, server.links._settings), driver.module.Error)
        for server in (servers.master, *servers.slaves)
    ]


def name_of(connection: Connection) -> str:
    """Return what the database of a connection is called in markers."""
    return connection._router._database.name


def table(title: str, found: Iterable[Standing]) -> str:
    """Return what was found as a table with a title."""
    found = list(found)
    rows = [COLUMNS, *(each.as_row() for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    lines += [f"  {each.state} {each.server}: {each.note}" for each in found if each.note]
    return "\n".join(lines)


def problems(title: str, found: Iterable[Standing]) -> list[str]:
    """Return what somebody should see to, in a line each."""
    return [f"{title}: the {each.state} {each.server}: {each.problem}" for each in found if each.problem]


def _open(driver: Driver, settings: Mapping[str, Any], timeout: float) -> Raw:
    seconds = {} if driver.module is sqlite3 else {"connect_timeout": int(timeout), "read_timeout": int(timeout)}
    return driver.open({**settings, **seconds}, read_only=True)


def _ask(server: Asked, standing: Standing, timeout: float) -> None:
    try:
        with closing(server.open(timeout)) as raw:
            standing.reachable = True
            if isinstance(raw, sqlite3.Connection):
                _ask_sqlite(raw, server, standing)
            elif hasattr(raw, "get_server_info"):
                _ask_mysql(raw, server, standing)
            else:
                standing.note = "it is neither MariaDB nor MySQL nor SQLite, and replswitch cannot ask it more"
    except Exception as error:  # noqa: BLE001 - whatever keeps a server from answering is told of
        standing.problem = f"{'it failed' if standing.reachable else 'no connection'}: {_words(error)}"


def _words(error: Exception) -> str:
    return f"{error.args[1]} ({error.args[0]})" if len(error.args) > 1 else str(error)


def _ask_sqlite(raw: sqlite3.Connection, server: Asked, standing: Standing) -> None:
    """Look at the file. Nothing replicates it that could be asked."""
    files = {name: file for _, name, file in raw.execute("PRAGMA database_list")}
    if files.get("main"):
        standing.variables = {"file": files["main"]}
    standing.version = sqlite3.sqlite_version


def _ask_mysql(raw: Raw, server: Asked, standing: Standing) -> None:
    variables = {row["variable_name"]: str(row["value"]) for row in _rows(raw, _VARIABLES)}
    standing.variables = variables
    standing.version = variables.get("version")
    standing.read_only = any(variables.get(name, "OFF") != "OFF" for name in ("read_only", "innodb_read_only"))
    if server.state == MASTER:
        return
    if variables.get("wsrep_on") == "ON" or any(map(variables.get, _CLUSTERS)):
        standing.replication = "cluster"
    else:
        _ask_replication(raw, server, standing)


def _ask_replication(raw: Raw, server: Asked, standing: Standing) -> None:
    # MariaDB's has every source of a slave that follows several; SLAVE went from MySQL in 8.4, REPLICA came in 8.0.22.
    statements = ["SHOW ALL SLAVES STATUS"] if standing.is_mariadb else ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
    for statement in statements:
        try:
            _judge_replication(standing, _rows(raw, statement))
        except server.error as error:
            if error.args[0] == _DENIED:
                standing.replication, standing.note = "unknown", _grant(raw, standing)
            elif error.args[0] == _UNKNOWN_STATEMENT and statement != statements[-1]:
                continue
            else:
                raise
        return


def _grant(raw: Raw, standing: Standing) -> str:
    privilege = "SLAVE MONITOR" if standing.is_mariadb else "REPLICATION CLIENT"
    (row,) = _rows(raw, "SELECT CURRENT_USER() AS account")
    account = "@".join(f"'{part}'" for part in str(row["account"]).rpartition("@")[::2])
    return f"its user may not ask how replication goes. On the master: GRANT {privilege} ON *.* TO {account}"


def _rows(raw: Raw, sql: str) -> list[dict[str, Any]]:
    """Return rows with the names of their columns in small letters, and as they were before MySQL 8.0.22."""
    with closing(raw.cursor()) as cursor:
        cursor.execute(sql)
        names = [
            column[0].lower().replace("replica_", "slave_").replace("_source", "_master")
            for column in cursor.description
        ]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _judge_replication(standing: Standing, sources: Iterable[Mapping[str, Any]]) -> None:
    """Say how replication goes; of a slave that follows several masters, the worst counts."""
    standing.replication, standing.problem = "none", "it follows no master"
    for source in sources:
        threads = {source["slave_io_running"], source["slave_sql_running"]}
        errors = " ".join(filter(None, (source["last_io_error"], source["last_sql_error"])))
        if threads == {"Yes"}:
            replication = "running"
        elif "No" not in threads:
            replication = "connecting"
        else:
            replication = "broken" if errors else "stopped"
        if _SEVERITY[replication] >= _SEVERITY[standing.replication]:
            standing.replication = replication
            standing.problem = _PROBLEMS.get(replication) and _PROBLEMS[replication] + (errors and f": {errors}")
        if source["seconds_behind_master"] is not None:
            standing.behind = max(int(source["seconds_behind_master"]), standing.behind or 0)
    if standing.replication != "running":
        standing.behind = None
