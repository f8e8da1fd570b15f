"""What MariaDB and MySQL say of their replication when they are asked, by any driver of theirs.

The connections are those that `replswitch.drivers.Driver.open` returns; `plain_cursor` on them is the driver's own
class of cursors, because the application may have set another one as the default, and `last_known_position` the
position of what their session wrote last, as far as it is known.

https://mariadb.com/kb/en/gtid/ and https://dev.mysql.com/doc/refman/9.1/en/replication-gtids.html.
"""

from __future__ import annotations

from contextlib import closing
from math import inf
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers.tracker import Written
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers.driver import Raw
    from replswitch.positions import Position

# ER_SPECIFIC_ACCESS_DENIED_ERROR
_ACCESS_DENIED: Final = 1227

# A slave moves its position also past transactions that it leaves out (IGNORE_DOMAIN_IDS). Its own binary log has those
# that it has carried out, if it keeps one: https://mariadb.com/kb/en/change-master-to/#ignore_domain_ids.
_POSITION_OF_MARIADB: Final = (
    "SELECT @@GLOBAL.gtid_current_pos, IF(@@GLOBAL.log_slave_updates, @@GLOBAL.gtid_binlog_pos, NULL),"
    " @@server_id, @@hostname"
)

# The counter is the session's own: of what it has committed with the binary log. It leaves out tables without
# transactions, and XA COMMIT: https://dev.mysql.com/doc/refman/9.1/en/server-status-variables.html#statvar_Handler_prepare.
_WRITTEN_ON_MYSQL: Final = (
    "SELECT @@GLOBAL.gtid_executed, @@server_uuid, (SELECT VARIABLE_VALUE FROM performance_schema.session_status"
    " WHERE VARIABLE_NAME = 'Handler_prepare')"
)

_VARIABLES: Final = ("log_bin", "sql_log_bin", "wsrep_on", "gtid_mode")
_IDENTITY: Final = ("server_id", "hostname", "server_uuid")


def has_positions(raw: Raw, *, identify: bool = True) -> bool:
    """Ask whether everything that is written through a connection gets a GTID; and who the server is (``identity``).

    Not with binary logging off, with Galera (a node's own commits have none that another node counts), or on a MySQL
    without GTIDs; one log line says so.

    Args:
        raw: the connection.
        identify: ask also a MySQL who it is. Each line of the answer moves the counters of its session.
    """
    identify = identify or is_mariadb(raw)
    wanted = _VARIABLES + _IDENTITY if identify else _VARIABLES
    told = {_text(name): _text(value) for name, value in _rows(raw, f"SHOW VARIABLES WHERE Variable_name IN {wanted}")}
    if identify:
        raw.identity = (told.get("server_id"), told.get("hostname")) if is_mariadb(raw) else told.get("server_uuid")
    variables = {name: value.upper() for name, value in told.items()}
    reason = ""
    if variables.get("log_bin") != "ON" or variables.get("sql_log_bin") != "ON":
        reason = "its binary log is off"
    elif variables.get("wsrep_on") == "ON":
        reason = "it is a node of a Galera cluster"
    elif not is_mariadb(raw) and variables.get("gtid_mode") != "ON":
        reason = "its gtid_mode is not ON"
    if reason:
        fall_back_to_clock(f"The master tells no positions, because {reason}")
    return not reason


def is_mariadb(raw: Raw) -> bool:
    """Say whether the server is MariaDB, by the version that it greets with."""
    return "mariadb" in str(raw.get_server_info()).lower()


def last_written(raw: Raw, since: Position | None, *, only_rows: bool = False) -> Position | Written:
    """Ask for the position of what a session wrote last, keep it, and compare it with ``since``.

    MySQL keeps none for a session: there it is all that the server itself has written. What the session's statements
    may have been that returned rows (calls of functions), the session's own counter tells (``raw.changes``).

    Args:
        raw: the connection.
        since: what was known before the statements in question.
        only_rows: they have all returned rows.

    Raises:
        PositionError: the answer is none.
    """
    latest: Position
    only_read = False
    if is_mariadb(raw):
        ((gtid,),) = _rows(raw, "SELECT @@SESSION.last_gtid")
        latest = MariaDBPosition.parse(_text(gtid))
    else:
        ((executed, uuid, changes),) = _rows(raw, _WRITTEN_ON_MYSQL)
        raw.identity = _text(uuid)
        latest = MySQLPosition.parse(_text(executed)).written_by(raw.identity)
        before, raw.changes = raw.changes, int(changes)
        only_read = only_rows and raw.changes == before
    raw.last_known_position = latest
    return Written.NO if only_read or latest == since or not str(latest) else latest


def fetch_position(raw: Raw) -> tuple[Hashable, Position | None]:
    """Ask a server who it is and how far it has come.

    Raises:
        PositionError: the answer is none.
    """
    if is_mariadb(raw):
        ((gtids, logged, *identity),) = _rows(raw, _POSITION_OF_MARIADB)
        reached = MariaDBPosition.parse(_text(gtids))
        if logged is not None:
            reached = reached.earlier(MariaDBPosition.parse(_text(logged)))
        return tuple(map(_text, identity)), reached
    ((executed, uuid),) = _rows(raw, "SELECT @@GLOBAL.gtid_executed, @@server_uuid")
    return _text(uuid), MySQLPosition.parse(_text(executed))


def wait_for(raw: Raw, position: Position, seconds: float) -> bool:
    """Wait on the server until it has reached a position; False when it has not after so many seconds."""
    if is_mariadb(raw):
        ((outcome,),) = _rows(raw, "SELECT MASTER_GTID_WAIT(%s, %s)", str(position), seconds)
    else:
        ((outcome,),) = _rows(raw, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", str(position), seconds)
    return int(outcome) == 0


def seconds_behind(raw: Raw) -> float | None:
    """Ask a slave how far behind it is: `math.inf` where its replication has stopped, 0 where it follows nobody.

    None where the account may not ask: MariaDB wants SLAVE MONITOR, MySQL REPLICATION CLIENT.

    Raises:
        Exception: the driver's own error.
    """
    try:
        with closing(raw.cursor(raw.plain_cursor)) as cursor:
            cursor.execute("SHOW ALL SLAVES STATUS" if is_mariadb(raw) else "SHOW REPLICA STATUS")
            names = [str(column[0]).lower() for column in cursor.description or ()]
            sources = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except raw.Error as error:
        if error.args[0] == _ACCESS_DENIED:
            return None
        raise
    told = [source.get("seconds_behind_master", source.get("seconds_behind_source")) for source in sources]
    return max((inf if seconds is None else float(seconds) for seconds in told), default=0.0)


def _rows(raw: Raw, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(raw.cursor(raw.plain_cursor)) as cursor:
        cursor.execute(sql, values or None)
        return [tuple(row) for row in cursor.fetchall()]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
