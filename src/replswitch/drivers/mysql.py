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
_REFUSED: Final = {1792, 1836}
_OPTION_PREVENTS: Final = 1290
_READ_ONLY_OPTION: Final = re.compile(r"--(super[-_])?read[-_]only")

# Too many connections, shutting down, killed (MariaDB), gone for idleness (MySQL); no socket, no host, gone, lost.
_UNREACHABLE: Final = {1040, 1053, 1927, 4031, 2002, 2003, 2006, 2013}

_DEADLOCK: Final = 1213


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


def unreachable(error: BaseException) -> bool:
    """Say whether the server is not there, takes nobody in, or the connection to it is gone."""
    return _code_and_message(error)[0] in _UNREACHABLE


def deadlocked(error: BaseException) -> bool:
    """Say whether the server rolled the transaction back to end a deadlock."""
    return _code_and_message(error)[0] == _DEADLOCK


def _code_and_message(error: BaseException) -> tuple[int, str]:
    code, message = (*error.args, 0, "")[:2]
    return (code if isinstance(code, int) else 0), str(message)
