"""How the servers of an alias stand, asked of themselves: for the system checks and for ``manage.py replswitch``.

Each server gets a short connection of its own, outside the links that the application uses.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections
from django.db.utils import load_backend

from django_replswitch.backends.links import servers_of
from replswitch import MASTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_replswitch.backends.links import Server
    from replswitch import State

#: Seconds for a server to let us in, and to answer, where OPTIONS has no ``connect_timeout``.
TIMEOUT: Final = 5

# Not asked as @@name: a server that lacks one of them would refuse the whole statement.
_VARIABLES: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'read_only', 'super_read_only', 'innodb_read_only', "
    "'hostname', 'port', 'server_id', 'server_uuid', 'wsrep_on', 'aurora_version', 'group_replication_group_name')"
)

_SEVERITY: Final = {"none": 0, "running": 1, "connecting": 2, "stopped": 3, "broken": 4}
_PROBLEMS: Final = {
    "connecting": "it does not reach its master",
    "stopped": "replication is stopped",
    "broken": "replication ended with an error",
}

# ER_SPECIFIC_ACCESS_DENIED_ERROR, ER_PARSE_ERROR.
_DENIED: Final = 1227
_UNKNOWN_STATEMENT: Final = 1064


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
        is_master: it is the master itself, by whatever address.
        grants: what its user may do there, as SHOW GRANTS has it.
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
    is_master: bool = False
    grants: list[str] = field(default_factory=list, repr=False)  # there may be the hash of a password in it
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """What no two servers have in common; empty where the database does not say."""
        return tuple(
            self.variables[name] for name in ("hostname", "port", "server_id", "server_uuid") if name in self.variables
        )

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB, and not MySQL."""
        return "mariadb" in (self.version or "").lower()


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
            or else `TIMEOUT`.
    """
    connection = connections[alias]
    master, slaves = servers_of(connection.settings_dict, alias)
    servers = (master, *slaves)
    with ThreadPoolExecutor(len(servers)) as pool:
        found = list(pool.map(lambda server: _ask(connection, server, timeout), servers))
    _judge(connection, servers, found)
    return found


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


def _ask(connection: BaseDatabaseWrapper, server: Server, timeout: float | None) -> Standing:
    standing = Standing(server.state, server.name)
    ask = _ask_mysql if connection.vendor == "mysql" else _ask_sqlite
    try:
        ask(connection, server, standing, timeout)
    except Error as error:
        standing.problem = f"{'it failed' if standing.reachable else 'no connection'}: {_words(error)}"
    return standing


def _words(error: Exception) -> str:
    return f"{error.args[1]} ({error.args[0]})" if len(error.args) > 1 else str(error)


def _own_connection(connection: BaseDatabaseWrapper, server: Server) -> Any:
    """Return a wrapper for one server alone. It connects in this thread, and to nothing else."""
    settings = connection.settings_dict
    return type(connection)({**server.merged(settings, settings["NAME"]), "SLAVES": ()}, connection.alias)


def _ask_sqlite(connection: BaseDatabaseWrapper, server: Server, standing: Standing, timeout: float | None) -> None:
    """Open the file, if there is one. Nothing replicates it that could be asked."""
    own = _own_connection(connection, server)
    params = own.get_connection_params()
    name = str(params["database"])
    if not (own.is_in_memory_db() or name.startswith("file:") or Path(name).exists()):
        standing.problem = "there is no such file"
        return
    with own.wrap_database_errors, closing(own.get_new_connection(params)) as raw:
        raw.execute("PRAGMA schema_version").close()
    standing.reachable = True
    standing.version = ".".join(map(str, own.get_database_version()))


def _ask_mysql(connection: BaseDatabaseWrapper, server: Server, standing: Standing, timeout: float | None) -> None:
    own = _own_connection(connection, server)
    params = own.get_connection_params()
    params.pop("database", None)  # in a test run a slave may not have it yet
    seconds = timeout or params.get("connect_timeout") or TIMEOUT
    params |= {"connect_timeout": seconds, "read_timeout": seconds}
    with own.wrap_database_errors, closing(own.get_new_connection(params)) as raw:
        standing.reachable = True
        variables = {row["variable_name"]: str(row["value"]) for row in _rows(raw, _VARIABLES)}
        standing.variables = variables
        standing.version = variables.get("version")
        standing.read_only = any(variables.get(name, "OFF") != "OFF" for name in ("read_only", "innodb_read_only"))
        standing.grants = [str(next(iter(row.values()))) for row in _rows(raw, "SHOW GRANTS")]
        if server.state != MASTER:
            _ask_replication(own, raw, standing)


def _ask_replication(own: Any, raw: Any, standing: Standing) -> None:
    variables = standing.variables
    if (
        variables.get("wsrep_on") == "ON"
        or variables.get("aurora_version")
        or variables.get("group_replication_group_name")
    ):
        standing.replication = "cluster"
        return
    # MariaDB's has every source of a slave that follows several; SLAVE went from MySQL in 8.4, REPLICA came in 8.0.22.
    statements = ["SHOW ALL SLAVES STATUS"] if standing.is_mariadb else ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
    for statement in statements:
        try:
            _judge_replication(standing, _rows(raw, statement))
        except own.Database.Error as error:
            if error.args[0] == _DENIED:
                standing.replication = "unknown"
                privilege = "SLAVE MONITOR" if standing.is_mariadb else "REPLICATION CLIENT"
                (row,) = _rows(raw, "SELECT CURRENT_USER() AS account")
                standing.note = (
                    f"its user may not ask how replication goes. On the master: GRANT {privilege} ON *.* TO "
                    + "@".join(f"'{part}'" for part in row["account"].rpartition("@")[::2])
                )
            elif error.args[0] == _UNKNOWN_STATEMENT and statement != statements[-1]:
                continue
            else:
                raise
        return


def _rows(raw: Any, sql: str) -> list[dict[str, Any]]:
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


def _judge(connection: BaseDatabaseWrapper, servers: Sequence[Server], found: Sequence[Standing]) -> None:
    """Say what can be seen only from all servers of an alias."""
    master, *slaves = found
    if master.reachable and master.read_only:
        master.problem = "it is read_only, so nobody can write"
    for server, slave in zip(servers[1:], slaves, strict=True):
        same_address = address(connection.settings_dict, server) == address(connection.settings_dict, servers[0])
        slave.is_master = slave.reachable and (
            same_address or (bool(slave.identity) and slave.identity == master.identity)
        )
        if slave.is_master:
            slave.replication, slave.behind, slave.problem, slave.note = None, None, None, "it is the master itself"
