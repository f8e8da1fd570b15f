"""Query a server of PostgreSQL about itself and its replication."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER
from replswitch.drivers.postgresql_lag import BEHIND

if TYPE_CHECKING:
    from replswitch.drivers import Raw
    from replswitch.report.status import Asked, ServerStatus

_ITSELF: Final = (
    "SELECT current_setting('server_version'), pg_is_in_recovery(), system_identifier::text,"
    " extract(epoch FROM pg_postmaster_start_time())::text, current_setting('synchronous_commit'),"
    " current_setting('synchronous_standby_names') FROM pg_control_system()"
)


def ask_postgresql(raw: Raw, server: Asked, status: ServerStatus) -> None:
    """Query a server, and record its answers.

    Args:
        raw: a connection to the server.
        server: the server.
        status: the object that gets the answers.

    Raises:
        Exception: the driver's own error.
    """
    status.reachable = True
    status.version, is_slave, system, started, commits, waits_for = raw.question(_ITSELF)
    status.read_only = is_slave
    status.variables = {"server_id": system, "server_uuid": started}
    if waits_for and not is_slave:
        status.variables["synchronous_commit"] = commits
        if commits == "remote_apply":
            status.note = "each commit waits for synchronous slaves (remote_apply), which replswitch does not need"
    if server.state == MASTER:
        return
    if not is_slave:
        status.replication, status.problem = "none", "it follows no master"
        return
    seconds, _, receives = raw.question(BEHIND)
    (paused,) = raw.question("SELECT pg_is_wal_replay_paused()")
    if receives is None:
        status.replication = "unknown"
        status.note = "its user may not query the replication status. On the master: GRANT pg_monitor TO the user"
    elif paused:
        status.replication, status.problem = "stopped", "it applies nothing, because replay is paused"
    elif receives:
        status.replication = "running"
        status.behind = math.floor(seconds) if math.isfinite(seconds) else None
    else:
        status.replication, status.problem = "stopped", "it receives nothing from its master"
