"""What the drivers of MariaDB and MySQL have in common: their settings, and what the servers' errors mean.

All put an error's code and message into ``args``. The codes:
https://mariadb.com/kb/en/mariadb-error-code-reference/ and
https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html; those from 2000 on are the clients' own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE; and ER_OPTION_PREVENTS_STATEMENT, which is said of
# other options too.
_READ_ONLY_TRANSACTION: Final = 1792
_REFUSED: Final = {_READ_ONLY_TRANSACTION, 1836}
_OPTION_PREVENTS: Final = 1290
_READ_ONLY_OPTION: Final = re.compile(r"--(super[-_])?read[-_]only")

# Too many connections, shutting down, killed (MariaDB), gone for idleness (MySQL); no socket, no host, gone, lost.
_FULL: Final = 1040
_UNREACHABLE: Final = {_FULL, 1053, 1927, 4031, 2002, 2003, 2006, 2013}

_DEADLOCK: Final = 1213

# What a slave says where replication and the read got into each other's way: record has changed since it was read
# (MariaDB), lock wait timeout, deadlock.
_CONFLICTS: Final = {1020, 1205, _DEADLOCK}

# In the message of a lost connection (2013) whose time for reading was over; PyMySQL's words.
_TIMED_OUT: Final = "timed out"

# The client could not even send (gone away), so nothing can have run.
_NOT_SENT: Final = 2006


#: Seconds until a server that takes packets and never answers counts as gone, where the settings say nothing: for
#: a new connection, and for the answer to a statement on a slave.
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 60


def with_timeouts(settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
    """Return the settings with time-outs. The master's answers are waited for: an ALTER TABLE may take its time."""
    defaults = {"connect_timeout": CONNECT_TIMEOUT}
    if read_only:
        # One for both: where they differ, PyMySQL changes its socket's twice for each statement.
        defaults["read_timeout"] = defaults["write_timeout"] = settings.get("read_timeout", READ_TIMEOUT)
    return {**defaults, **settings}


def address(settings: Mapping[str, Any]) -> str:
    """Return the socket, or the host with its port where that is not 3306."""
    if settings.get("unix_socket"):
        return str(settings["unix_socket"])
    port = settings.get("port") or 3306
    return f"{settings.get('host') or 'localhost'}{'' if port == 3306 else f':{port}'}"


def schema(settings: Mapping[str, Any]) -> str:
    """Return the name of the database; empty where the settings name none."""
    return str(settings.get("database") or settings.get("db") or "")


def refused_write(error: BaseException) -> bool:
    """Say whether the server refused a write because the session or the server is read-only (S8)."""
    code, message = _code_and_message(error)
    return code in _REFUSED or (code == _OPTION_PREVENTS and bool(_READ_ONLY_OPTION.search(message)))


def is_full(error: BaseException) -> bool:
    """Say whether there are as many connections as the server takes."""
    return _code_and_message(error)[0] == _FULL


def unreachable(error: BaseException) -> bool:
    """Say whether the server is not there, takes nobody in, or the connection to it is gone."""
    return _code_and_message(error)[0] in _UNREACHABLE


def conflicted(error: BaseException) -> bool:
    """Say whether a read on a slave was given up because of what is being replicated; again, it may succeed."""
    return _code_and_message(error)[0] in _CONFLICTS


def timed_out(error: BaseException) -> bool:
    """Say whether the time for reading an answer was over: the server may be gone, or the query slow."""
    return _TIMED_OUT in _code_and_message(error)[1]


def not_sent(error: BaseException) -> bool:
    """Say whether the statement certainly did not run, because the connection was gone before it was sent."""
    return _code_and_message(error)[0] == _NOT_SENT


def read_only_master(error: BaseException) -> bool:
    """Say whether a server that was taken for the master is read-only; 1792 is the application's own transaction."""
    return refused_write(error) and _code_and_message(error)[0] != _READ_ONLY_TRANSACTION


def deadlocked(error: BaseException) -> bool:
    """Say whether the server rolled the transaction back to end a deadlock."""
    return _code_and_message(error)[0] == _DEADLOCK


def _code_and_message(error: BaseException) -> tuple[int, str]:
    code, message = (*error.args, 0, "")[:2]
    return (code if isinstance(code, int) else 0), str(message)
