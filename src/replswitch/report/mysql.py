"""Query a server of MariaDB or MySQL about itself, its user and its replication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.decision import MASTER
from replswitch.drivers.mysql import records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replswitch.drivers import Raw
    from replswitch.report.status import Asked, ServerStatus

# They are not queried as @@name, because a server without one of them would refuse the whole statement.
_VARIABLES: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'read_only', 'super_read_only', 'innodb_read_only', "
    "'hostname', 'port', 'server_id', 'server_uuid', 'wsrep_on', 'aurora_version', 'group_replication_group_name')"
)
_CLUSTERS: Final = ("aurora_version", "group_replication_group_name")

_SEVERITY: Final = {"none": 0, "running": 1, "connecting": 2, "stopped": 3, "broken": 4}
_PROBLEMS: Final = {
    "connecting": "it cannot connect to its master",
    "stopped": "replication is stopped",
    "broken": "replication ended with an error",
}

# ER_SPECIFIC_ACCESS_DENIED_ERROR, ER_PARSE_ERROR.
_DENIED: Final = 1227
_UNKNOWN_STATEMENT: Final = 1064


def ask_mysql(raw: Raw, server: Asked, status: ServerStatus) -> None:
    """Query a server, and record its answers.

    Args:
        raw: a connection to the server.
        server: the server.
        status: the object that gets the answers.

    Raises:
        Exception: the driver's own error.
    """
    status.reachable = True
    variables = {row["variable_name"]: str(row["value"]) for row in records(raw, _VARIABLES)}
    status.variables = variables
    status.version = variables.get("version")
    status.read_only = any(variables.get(name, "OFF") != "OFF" for name in ("read_only", "innodb_read_only"))
    status.grants = [str(next(iter(row.values()))) for row in records(raw, "SHOW GRANTS")]
    if server.state == MASTER:
        return
    if variables.get("wsrep_on") == "ON" or any(map(variables.get, _CLUSTERS)):
        status.replication = "cluster"
    else:
        _ask_replication(raw, server, status)


def _ask_replication(raw: Raw, server: Asked, status: ServerStatus) -> None:
    # MariaDB's statement shows all sources of a slave. MySQL has REPLICA since 8.0.22, SLAVE until 8.3.
    statements = ["SHOW ALL SLAVES STATUS"] if status.is_mariadb else ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
    for statement in statements:
        try:
            _judge_replication(status, records(raw, statement))
        except server.error as error:
            if error.args[0] == _UNKNOWN_STATEMENT and statement != statements[-1]:
                continue
            if error.args[0] != _DENIED:
                raise
            status.replication, status.note = "unknown", _grant(raw, status)
        return


def _grant(raw: Raw, status: ServerStatus) -> str:
    privilege = "SLAVE MONITOR" if status.is_mariadb else "REPLICATION CLIENT"
    (row,) = records(raw, "SELECT CURRENT_USER() AS account")
    account = "@".join(f"'{part}'" for part in str(row["account"]).rpartition("@")[::2])
    return f"its user may not query the replication status. On the master: GRANT {privilege} ON *.* TO {account}"


def _judge_replication(status: ServerStatus, sources: Iterable[Mapping[str, Any]]) -> None:
    """Record the state of the replication. If a slave replicates from several masters, record the worst state."""
    status.replication, status.problem = "none", "it follows no master"
    for source in sources:
        threads = {source["slave_io_running"], source["slave_sql_running"]}
        errors = " ".join(filter(None, (source["last_io_error"], source["last_sql_error"])))
        replication = "running" if threads == {"Yes"} else "connecting"
        if "No" in threads:
            replication = "broken" if errors else "stopped"
        if _SEVERITY[replication] >= _SEVERITY[status.replication]:
            status.replication = replication
            status.problem = _PROBLEMS.get(replication) and _PROBLEMS[replication] + (errors and f": {errors}")
        if source["seconds_behind_master"] is not None:
            status.behind = max(int(source["seconds_behind_master"]), status.behind or 0)
    if status.replication != "running":
        status.behind = None
