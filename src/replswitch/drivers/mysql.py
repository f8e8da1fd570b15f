"""The common part of the drivers of MariaDB and MySQL: settings, positions, and the meanings of errors.

The connections of these drivers have an attribute `plain_cursor`, the driver's own cursor class, because the
application may have set another default. Their attribute `last_known_position` is the position of the session's latest
known write.

GTIDs: https://mariadb.com/kb/en/gtid/ and https://dev.mysql.com/doc/refman/9.1/en/replication-gtids.html.

All drivers put an error's code and message into ``args``. The codes:
https://mariadb.com/kb/en/mariadb-error-code-reference/ and
https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html. The client sets the codes from 2000 to 2999.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Final

from replswitch.drivers.driver import Driver, Fault
from replswitch.drivers.mysql_settings import require_kinds, time_limits
from replswitch.drivers.one_host import one_host
from replswitch.drivers.written import Written
from replswitch.errors import ConfigurationError
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from replswitch.drivers.driver import Raw
    from replswitch.drivers.written import WriteTracker
    from replswitch.positions import Position

# ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE; and ER_OPTION_PREVENTS_STATEMENT, which is used for
# other options too.
READ_ONLY_TRANSACTION: Final = 1792
_READ_ONLY_MODE: Final = 1836
_OPTION_PREVENTS: Final = 1290
_READ_ONLY_OPTION: Final = re.compile(r"--(super[-_])?read[-_]only")

# ER_UNKNOWN_COM_ERROR. A Galera node that has left its cluster sends it, but it can have other causes.
_UNKNOWN_COMMAND: Final = 1047

# With these hosts, every driver connects to the socket in ``unix_socket``.
_HERE: Final = (None, "", "localhost")

# The client's codes 2002, 2003, 2006 and 2013: no socket; no host; gone away before sending; lost.
_FAULTS: Final = {
    READ_ONLY_TRANSACTION: Fault.REFUSED,
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
    1020: Fault.DEADLOCK,  # ER_CHECKREAD: a record has changed since it was read; rolls back as well (MariaDB)
    1205: Fault.CONFLICT,  # ER_LOCK_WAIT_TIMEOUT
    1146: Fault.UNDEFINED,  # ER_NO_SUCH_TABLE
    1054: Fault.UNDEFINED,  # ER_BAD_FIELD_ERROR
}

# ER_SPECIFIC_ACCESS_DENIED_ERROR
_ACCESS_DENIED: Final = 1227

# A slave advances its position past transactions that it skips, too (IGNORE_DOMAIN_IDS). Its own binary log, if it has
# one, contains only those that it has executed: https://mariadb.com/kb/en/change-master-to/#ignore_domain_ids.
_POSITION_OF_MARIADB: Final = (
    "SELECT @@GLOBAL.gtid_current_pos, IF(@@GLOBAL.log_slave_updates, @@GLOBAL.gtid_binlog_pos, NULL),"
    " @@server_id, @@hostname"
)

# A text in PyMySQL's message for a connection that was lost by a read time-out (2013).
_TIMED_OUT: Final = "timed out"

_POSITION_OF_MYSQL: Final = "SELECT @@GLOBAL.gtid_executed, @@server_uuid"

# The counter counts what this session has committed with the binary log. It leaves out tables without
# transactions, and XA COMMIT: https://dev.mysql.com/doc/refman/9.1/en/server-status-variables.html#statvar_Handler_prepare.
_WRITTEN_ON_MYSQL: Final = (
    f"{_POSITION_OF_MYSQL}, (SELECT VARIABLE_VALUE FROM performance_schema.session_status"  # noqa: S608 - constants
    " WHERE VARIABLE_NAME = 'Handler_prepare')"
)

_VARIABLES: Final = ("log_bin", "sql_log_bin", "wsrep_on", "gtid_mode", "group_replication_group_name")
_IDENTITY: Final = ("server_id", "hostname", "server_uuid")


def has_positions(raw: Raw, *, identify: bool = True) -> bool:
    """Query and return whether writes of a connection get a GTID. Store the server's identity in ``raw.identity``.

    Writes get no GTID if binary logging is off, and on MySQL without GTIDs. With Galera, writes are treated as writes
    without a GTID, because a GTID of one node has no meaning on another. In these cases, the reason is logged once.

    Args:
        raw: the connection.
        identify: query the identity of a MySQL server, too. The query then returns more rows, which change the
            session's counters.
    """
    raw.includes_others = not is_mariadb(raw)
    identify = identify or is_mariadb(raw)
    wanted = _VARIABLES + _IDENTITY if identify else _VARIABLES
    shown = {text(name): text(value) for name, value in rows(raw, f"SHOW VARIABLES WHERE Variable_name IN {wanted}")}
    if identify:
        raw.identity = (shown.get("server_id"), shown.get("hostname")) if is_mariadb(raw) else shown.get("server_uuid")
    raw.group = shown.get("group_replication_group_name", "")  # its UUID is in the GTIDs of a group's transactions
    variables = {name: value.upper() for name, value in shown.items()}
    reason = ""
    if variables.get("log_bin") != "ON" or variables.get("sql_log_bin") != "ON":
        reason = "its binary log is off"
    elif variables.get("wsrep_on") == "ON":
        reason = "it is a node of a Galera cluster"
    elif not is_mariadb(raw) and variables.get("gtid_mode") != "ON":
        reason = "its gtid_mode is not ON"
    if reason:
        fall_back_to_clock(f"The master reports no positions, because {reason}")
    return not reason


def is_mariadb(raw: Raw) -> bool:
    """Return whether the server is MariaDB, by the version in its greeting."""
    return "mariadb" in str(raw.get_server_info()).lower()


def last_written(raw: Raw, since: Position | None, *, only_rows: bool = False) -> Position | Written:
    """Query, store and return the position of a session's latest write; `Written.NO` without a write after ``since``.

    MySQL keeps no position for a session, so on MySQL this is the position of all writes of the server. A later
    position may then come from another session. So if all statements have returned rows, a counter of the session
    (``raw.changes``) shows whether one of them has written, for example in a function.

    Args:
        raw: the connection.
        since: the position that was known before the statements in question.
        only_rows: all these statements have returned rows.

    Raises:
        PositionError: the answer is not a position.
    """
    latest: Position
    only_read = False
    if is_mariadb(raw):
        ((gtid,),) = rows(raw, "SELECT @@SESSION.last_gtid")
        latest = MariaDBPosition.parse(text(gtid))
    else:
        ((executed, uuid, changes),) = rows(raw, _WRITTEN_ON_MYSQL)
        raw.identity = text(uuid)
        latest = MySQLPosition.parse(text(executed)).written_by(raw.identity, raw.group)
        before, raw.changes = raw.changes, int(changes)
        only_read = only_rows and raw.changes == before
    raw.last_known_position = latest
    return Written.NO if only_read or latest == since or not str(latest) else latest


def rows(raw: Raw, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a query of replswitch itself, which writes nothing, and return its rows."""
    on_write, raw.on_write = raw.on_write, None
    try:
        with closing(raw.cursor(raw.plain_cursor)) as cursor:
            cursor.execute(sql, values or None)
            return [tuple(row) for row in cursor.fetchall()]
    finally:
        raw.on_write = on_write


def records(raw: Raw, sql: str) -> list[dict[str, Any]]:
    """Run a query, and return its rows as mappings. Keys are in lower case, and named as before MySQL 8.0.22."""
    # The application may have set another default cursor class. Connections of other kinds use their default (None).
    with closing(raw.cursor(getattr(raw, "plain_cursor", None))) as cursor:
        cursor.execute(sql)
        names = [column[0].lower() for column in cursor.description]
        names = [name.replace("replica_", "slave_").replace("_source", "_master") for name in names]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def text(value: object) -> str:
    """Return a value as text; a driver may return bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def innermost(raw: Any) -> Any:
    """Return the driver's connection inside the wrappers of tools, which have an attribute ``__wrapped__``."""
    while hasattr(raw, "__wrapped__"):
        raw = raw.__wrapped__
    return raw


class MySQLFamilyDriver(Driver):
    """The base class of the drivers for PyMySQL and mysqlclient, which connect to MariaDB and MySQL."""

    engine = "mysql"
    default_port = 3306
    has_latest_position = True
    reads_may_lock = True

    #: Whether the driver ignores ``unix_socket`` if the settings have a host other than localhost.
    prefers_host = False

    #: Settings that replswitch sets itself.
    own_settings: ClassVar[set[str]] = {"autocommit"}

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that replswitch sets itself, and settings of a wrong kind."""
        require_kinds(settings, server)
        for name in sorted(self.own_settings & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is set by replswitch itself. Leave it out'
                f"{'; connect() itself has an argument of this name' if name == 'autocommit' else ''}."
            )

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the socket, or the host, with its port unless that is 3306."""
        if settings.get("unix_socket") and not (self.prefers_host and settings.get("host") not in _HERE):
            return str(settings["unix_socket"])
        port, host = str(settings.get("port") or 3306), str(settings.get("host") or "localhost")
        return host if port == "3306" else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return the address, and the names of the option file and its group, which may set the address."""
        host = str(settings.get("host") or "").lower().rstrip(".")
        files = (settings.get(name) for name in ("read_default_file", "read_default_group"))
        return "\n".join(map(str, filter(None, (self.address({**settings, "host": host}), *files))))

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port."""
        return one_host(what, settings.get("host"), settings.get("port") or 3306, settings.get("unix_socket"))

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database; empty if the settings name none."""
        return str(settings.get("database") or settings.get("db") or "")

    def open_for_report(self, settings: Mapping[str, Any], seconds: float) -> Raw:
        """Open a read-only connection whose time-outs are ``seconds``."""
        return self.open({**settings, **time_limits(seconds)}, read_only=True)

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Turn autocommit off."""
        raw.autocommit(False)

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the connection itself, which is its own write tracker."""
        tracker: WriteTracker = raw
        return tracker

    def readable(self, raw: Raw) -> Callable[[int], object]:
        """Return the function that says whether the socket has data to read."""
        poll: Callable[[int], object] = raw.poll
        return poll

    def alive(self, raw: Raw) -> bool:
        """Return whether the connection is open. In a forked child, return False, because it belongs to the parent."""
        # Between statements the server sends nothing. Data to read is an unread result, or the end of the connection.
        return bool(raw.open and raw.process == os.getpid() and (raw.owes_results or not raw.poll(0)))

    def ping(self, raw: Raw) -> None:
        """Send the protocol's ping command."""
        raw.ping()

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server."""
        if is_mariadb(raw):
            ((gtids, logged, *identity),) = rows(raw, _POSITION_OF_MARIADB)
            reached = MariaDBPosition.parse(text(gtids))
            if logged is not None:
                reached = reached.earlier(MariaDBPosition.parse(text(logged)))
            return tuple(map(text, identity)), reached
        ((executed, uuid),) = rows(raw, _POSITION_OF_MYSQL)
        return text(uuid), MySQLPosition.parse(text(executed))

    def latest_position(self, raw: Raw) -> Position | Written:
        """Query the position that includes all that the server has written to its binary log."""
        raw = innermost(raw)
        attributes: Any = vars(raw)
        kept = attributes.copy()  # restored below, because the queries are not the application's
        try:
            if raw.reports_positions is None:
                raw.reports_positions = has_positions(raw, identify=False)
                kept.update((name, attributes[name]) for name in ("reports_positions", "includes_others", "group"))
            if not raw.reports_positions:
                return Written.YES
            if is_mariadb(raw):
                return MariaDBPosition.parse(text(rows(raw, "SELECT @@GLOBAL.gtid_binlog_pos")[0][0]))
            ((executed, uuid),) = rows(raw, _POSITION_OF_MYSQL)
            return MySQLPosition.parse(text(executed)).written_by(text(uuid), raw.group)
        finally:
            attributes.clear()
            attributes.update(kept)

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait with a function of the server until it has reached a position. Return False after a time-out."""
        function = "MASTER_GTID_WAIT" if is_mariadb(raw) else "WAIT_FOR_EXECUTED_GTID_SET"
        ((outcome,),) = rows(raw, f"SELECT {function}(%s, %s)", str(position), seconds)
        return int(outcome) == 0

    def seconds_behind(self, raw: Raw) -> float | None:
        """Query the replication status, and return the lag in seconds.

        Return infinity if replication has stopped. Return None if the account lacks the privilege (SLAVE MONITOR on
        MariaDB, REPLICATION CLIENT on MySQL), or if the server does not replicate from another server, like a member of
        a cluster.
        """
        try:
            sources = records(raw, "SHOW ALL SLAVES STATUS" if is_mariadb(raw) else "SHOW REPLICA STATUS")
        except raw.Error as error:
            if error.args[0] == _ACCESS_DENIED:
                return None
            raise
        behind = [source["seconds_behind_master"] for source in sources]
        return max((math.inf if seconds is None else float(seconds) for seconds in behind), default=None)

    def has_common_positions(self, raw: Raw) -> bool:
        """Return True, except for a node of Galera, because the positions of such nodes are independent."""
        return not rows(raw, "SHOW VARIABLES WHERE Variable_name = 'wsrep_on' AND Value = 'ON'")

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error by its code, and by its message if the code has several meanings."""
        code, message = (*error.args, 0, "")[:2]
        fault = _FAULTS.get(code, Fault.OTHER) if isinstance(code, int) else Fault.OTHER
        if code == _OPTION_PREVENTS and _READ_ONLY_OPTION.search(str(message)):
            return Fault.READ_ONLY
        if code == _UNKNOWN_COMMAND and "WSREP" in str(message):
            return Fault.DOWN
        if fault is Fault.LOST and _TIMED_OUT in str(message):
            return Fault.TIMED_OUT
        return fault
