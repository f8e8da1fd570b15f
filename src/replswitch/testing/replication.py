"""The statements of replication, which differ between MariaDB and MySQL, and the status of a slave."""

from __future__ import annotations

from typing import Any, NamedTuple

from replswitch.testing.errors import NotCaughtUpError


class Dialect(NamedTuple):
    """The statements of MariaDB or of MySQL.

    Attributes:
        product: its name, for messages.
        stop: stops both threads of a slave.
        start: starts both threads of a slave.
        forget: makes a slave, whose threads are stopped, forget its master.
        delay: sets the delay of a slave, in seconds.
        status: queries the status of a slave.
        role: the prefix of the column names in the status.
        behind: the column with the lag in the status.
        position: queries the position of the master, as ``position``.
        reached: queries the position of a slave, as ``position``.
        wait: waits until a slave has reached a position, at most for a number of seconds. ``failed`` is 0 if it has.
    """

    product: str
    stop: str
    start: str
    forget: str
    delay: str
    status: str
    role: str
    behind: str
    position: str
    reached: str
    wait: str


MARIADB = Dialect(
    product="MariaDB",
    stop="STOP SLAVE",
    start="START SLAVE",
    forget="RESET SLAVE ALL",
    delay="CHANGE MASTER TO MASTER_DELAY = %s",
    status="SHOW SLAVE STATUS",
    role="Slave",
    behind="Seconds_Behind_Master",
    position="SELECT @@GLOBAL.gtid_binlog_pos AS position",
    reached="SELECT @@GLOBAL.gtid_slave_pos AS position",
    wait="SELECT MASTER_GTID_WAIT(%s, %s) AS failed",
)

MYSQL = Dialect(
    product="MySQL",
    stop="STOP REPLICA",
    start="START REPLICA",
    forget="RESET REPLICA ALL",
    delay="CHANGE REPLICATION SOURCE TO SOURCE_DELAY = %s",
    status="SHOW REPLICA STATUS",
    role="Replica",
    behind="Seconds_Behind_Source",
    position="SELECT @@GLOBAL.gtid_executed AS position",
    reached="SELECT @@GLOBAL.gtid_executed AS position",
    wait="SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS failed",
)


def has_failed(dialect: Dialect, status: dict[str, Any]) -> bool:
    """Return whether a thread of a slave ended with an error. A thread that still tries to connect has not failed."""
    return any(
        status[f"{dialect.role}_{kind}_Running"] == "No" and status[f"Last_{kind}_Errno"] for kind in ("IO", "SQL")
    )


def unsettled(dialect: Dialect, status: dict[str, Any]) -> str:
    """Return what a slave that has caught up does not report yet, or an empty text.

    The position of a slave moves a little before its lag becomes 0.
    """
    if status[f"{dialect.role}_IO_Running"] != "Yes":
        return "is not connected to its master"
    return f"reports a lag of {status[dialect.behind]} s" if status[dialect.behind] != 0 else ""


def not_caught_up(
    dialect: Dialect, name: str, positions: tuple[str, str], status: dict[str, Any], errors: list[str]
) -> NotCaughtUpError:
    """Return the error for a slave that has not caught up, with both positions and the reason.

    Args:
        dialect: the statements of the server's product.
        name: the slave.
        positions: the master's, and the slave's.
        status: the slave's answer to ``dialect.status``.
        errors: the errors of its replication.
    """
    threads = [f"{dialect.role}_{kind}_Running" for kind in ("IO", "SQL")]
    state = ", ".join(f"{thread}: {status[thread]}" for thread in threads)
    return NotCaughtUpError(
        f"{name} has not caught up: the master is at GTID {positions[0]}, {name} at {positions[1] or 'none'}"
        f" ({state}, SQL_Delay: {status['SQL_Delay']} s).{''.join(f' {error}' for error in errors)}",
        server=name,
    )
