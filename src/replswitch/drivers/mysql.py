"""What the drivers of MariaDB and MySQL have in common: their settings, and what the servers' errors mean.

All put an error's code and message into ``args``. The codes:
https://mariadb.com/kb/en/mariadb-error-code-reference/ and
https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html; those from 2000 on are the clients' own.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

# ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE; and ER_OPTION_PREVENTS_STATEMENT, which is said of
# other options too.
_READ_ONLY_TRANSACTION: Final = 1792
_READ_ONLY_MODE: Final = 1836
_OPTION_PREVENTS: Final = 1290
_READ_ONLY_OPTION: Final = re.compile(r"--(super[-_])?read[-_]only")

# ER_UNKNOWN_COM_ERROR, of a Galera node that has left its cluster; said of other commands too.
_UNKNOWN_COMMAND: Final = 1047

# The client's own codes are those from 2000 on: no socket, no host, gone away before sending, lost.
_FAULTS: Final = {
    _READ_ONLY_TRANSACTION: Fault.REFUSED,
    _READ_ONLY_MODE: Fault.READ_ONLY,
    1040: Fault.FULL,  # ER_CON_COUNT_ERROR
    1053: Fault.DOWN,  # ER_SERVER_SHUTDOWN
    3032: Fault.DOWN,  # ER_SERVER_OFFLINE_MODE (MySQL)
    1927: Fault.LOST,  # ER_CONNECTION_KILLED (MariaDB)
    4031: Fault.UNSENT,  # ER_CLIENT_INTERACTION_TIMEOUT (MySQL): closed for idleness
    2002: Fault.UNSENT,
    2003: Fault.UNSENT,
    2006: Fault.UNSENT,
    2013: Fault.LOST,
    1213: Fault.DEADLOCK,  # ER_LOCK_DEADLOCK
    1020: Fault.CONFLICT,  # ER_CHECKREAD: a record has changed since it was read (MariaDB)
    1205: Fault.CONFLICT,  # ER_LOCK_WAIT_TIMEOUT
    1146: Fault.UNDEFINED,  # ER_NO_SUCH_TABLE
    1054: Fault.UNDEFINED,  # ER_BAD_FIELD_ERROR
}

# In the message of a lost connection (2013) whose time for reading was over; PyMySQL's words.
_TIMED_OUT: Final = "timed out"


#: Seconds until a server that takes packets and never answers counts as gone, where the settings say nothing: for
#: a new connection, and for the answer to a statement on a slave. The latter is shorter than the time-out of most
#: application servers' workers (30 s), so that a slave that hangs does not get the worker killed (F5).
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 20


def with_timeouts(settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
    """Return the settings with time-outs. The master has no read time-out: an ALTER TABLE may take its time."""
    defaults = {"connect_timeout": CONNECT_TIMEOUT}
    if read_only:
        # One for both: where they differ, PyMySQL changes its socket's twice for each statement.
        defaults["read_timeout"] = defaults["write_timeout"] = settings.get("read_timeout", READ_TIMEOUT)
    return {**defaults, **settings}


def time_limits(timeout: float) -> dict[str, int]:
    """Return the settings with which the drivers give up after so many seconds; they take whole ones."""
    seconds = math.ceil(timeout)
    return {"connect_timeout": seconds, "read_timeout": seconds}


def address(settings: Mapping[str, Any]) -> str:
    """Return the socket, or the host with its port where that is not 3306."""
    if settings.get("unix_socket"):
        return str(settings["unix_socket"])
    port = settings.get("port") or 3306
    return f"{settings.get('host') or 'localhost'}{'' if port == 3306 else f':{port}'}"


def schema(settings: Mapping[str, Any]) -> str:
    """Return the name of the database; empty where the settings name none."""
    return str(settings.get("database") or settings.get("db") or "")


def classify(error: BaseException) -> Fault:
    """Return what an error means, by its code, and by its message where the code means several things."""
    code, message = (*error.args, 0, "")[:2]
    fault = _FAULTS.get(code, Fault.OTHER) if isinstance(code, int) else Fault.OTHER
    if code == _OPTION_PREVENTS and _READ_ONLY_OPTION.search(str(message)):
        return Fault.READ_ONLY
    if code == _UNKNOWN_COMMAND and "WSREP" in str(message):
        return Fault.DOWN
    if fault is Fault.LOST and _TIMED_OUT in str(message):
        return Fault.TIMED_OUT
    return fault
