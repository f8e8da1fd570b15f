"""PyMySQL, on MariaDB and MySQL."""

from __future__ import annotations

import inspect
import os
import select
import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pymysql
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.protocol import MysqlPacket

from replswitch.drivers import mysql
from replswitch.errors import ConfigurationError
from replswitch.options import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Ours to decide: transactions are begun and ended by replswitch, and a link is open from its beginning.
_OURS: Final = {"autocommit", "defer_connect"}
_SETTINGS: Final = set(inspect.signature(Connection.__init__).parameters) - {"self"} - _OURS

# SERVER_SESSION_STATE_CHANGED: the answer tells of a change that the session tracks.
# https://dev.mysql.com/doc/dev/mysql-server/latest/mysql__com_8h.html
_SESSION_CHANGED: Final = 0x4000

# SESSION_TRACK_TRANSACTION_STATE: what BEGIN, COMMIT and ROLLBACK tell on MySQL 9.7, whatever they have changed and
# although session_track_transaction_info is OFF.
_TRANSACTION_STATE: Final = b"\x05"


# This process, without a call of the system for each statement.
_process = os.getpid()


def _know_process() -> None:
    global _process  # noqa: PLW0603 - it changes in a forked child, and nowhere else
    _process = os.getpid()


os.register_at_fork(after_in_child=_know_process)


class _Result(MySQLResult):
    """A result that keeps the server's status of the packet behind the last row, which PyMySQL passes over."""

    def _check_packet_is_eof(self, packet: MysqlPacket) -> bool:
        if not packet.is_eof_packet():
            return False
        # Marker, number of warnings, status:
        # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html
        self.warning_count, status = struct.unpack_from("<HH", packet.get_all_data(), 1)  # type: ignore[no-untyped-call]
        self.has_next = bool(status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)
        self.connection.heard(status)  # type: ignore[union-attr]  # it is a _Connection until the result is read
        return True


class _Connection(Connection):
    """A connection that knows what each answer of the server said of its session.

    Args:
        read_only: let the database refuse writes (S7).
        settings: PyMySQL's own.
    """

    #: A commit that wrote something was told of and not yet taken.
    written = False
    #: Whether the server tells of such commits at all.
    tells = False

    _default_tls: ClassVar[Any] = None

    if TYPE_CHECKING:  # what types-PyMySQL leaves out
        _sock: Any
        server_capabilities: int
        _force_close: Callable[[], None]

    def __init__(self, *, read_only: bool, **settings: Any) -> None:
        self._read_only = read_only
        self._process = _process
        self._poll = select.poll()
        super().__init__(**settings)

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        # PyMySQL tries TLS with every server, and to read the system's certificates for it takes 30 ms each time.
        if sslp:
            return super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # types-PyMySQL leaves it out
        if _Connection._default_tls is None:
            _Connection._default_tls = super()._create_ssl_ctx(sslp)  # type: ignore[misc]
        return _Connection._default_tls

    def connect(self, sock: Any = None) -> None:
        super().connect(sock)
        self._poll.register(self._sock, select.POLLIN)
        with self.cursor(pymysql.cursors.Cursor) as cursor:
            if self._read_only:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
            else:
                self.tells = _track_commits(self, cursor)
        self.written = False

    def heard(self, status: int, told: bytes | None = None) -> None:
        self.server_status = status
        if status & _SESSION_CHANGED and (not told or _tells_of_position(told)):
            self.written = True

    def alive(self) -> bool:
        if self._sock is None or self._process != _process:
            return False  # closed, or a socket that a fork left in two processes: it is the parent's
        result = self._result
        if result is not None and (result.has_next or result.unbuffered_active):
            return True  # what can be read now is the rest of an answer
        # Between statements the server says nothing: what can be read now is its farewell, or the end.
        return not self._poll.poll(0)

    def close(self) -> None:
        if self._process == _process:
            super().close()
        else:  # without the QUIT that would end the parent's session
            self._force_close()

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result = _Result(self)
        if unbuffered:
            result.init_unbuffered_query()
        else:
            result.read()
        self._result = result
        if result.server_status is not None:
            self.heard(result.server_status, result.message)  # type: ignore[arg-type]  # types-PyMySQL: text
        return result.affected_rows

    def _read_ok_packet(self) -> Any:
        answer = super()._read_ok_packet()  # type: ignore[misc]  # types-PyMySQL leaves it out
        self.heard(answer.server_status, answer.message)
        return answer


def _tells_of_position(told: bytes) -> bool:
    """Say whether the end of an OK packet tells of more than the state of the transaction.

    It is a message and the entries, in the order of their types; there is none where an earlier answer should have told
    something and could not, as the EOF behind the rows of a function that writes:
    https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html
    """
    packet = MysqlPacket(told, "utf8")
    packet.read_length_coded_string()  # type: ignore[no-untyped-call]
    entries: bytes = packet.read_length_coded_string()  # type: ignore[no-untyped-call]
    return entries[:1] != _TRANSACTION_STATE


def _track_commits(raw: _Connection, cursor: Any) -> bool:
    """Have the server tell of commits that wrote, in the very answer to the commit; say whether it will.

    Only positions are tracked, so that the flag means nothing else. With binary logging off, with Galera, or on a
    MySQL without GTIDs, no position need change when something is written.
    """
    if not raw.server_capabilities & CLIENT.SESSION_TRACK:
        return False
    cursor.execute(
        "SHOW VARIABLES WHERE Variable_name IN ('log_bin', 'sql_log_bin', 'wsrep_on', 'gtid_mode', 'gtid_domain_id')"
    )
    variables = {name: str(value).upper() for name, value in cursor.fetchall()}
    if "gtid_domain_id" in variables:  # MariaDB
        tells, track = variables.get("wsrep_on") != "ON", "session_track_system_variables = 'last_gtid'"
    else:
        tells = variables.get("gtid_mode") == "ON"
        track = "session_track_gtids = OWN_GTID, session_track_system_variables = ''"
    if not tells or variables.get("log_bin") != "ON" or variables.get("sql_log_bin") != "ON":
        return False
    cursor.execute(
        f"SET SESSION {track}, session_track_schema = OFF, session_track_state_change = OFF, "
        "session_track_transaction_info = OFF"
    )
    return True


class PyMySQLDriver:
    """See `replswitch.drivers.Driver`. What tells of a write is the status flag 0x4000 of the server's answer."""

    module = pymysql

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that PyMySQL does not know, and those that are replswitch's own."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is replswitch\'s own to make. Leave it out; autocommit is an '
                "argument of connect()."
            )
        refuse_unknown(f"setting of {server}", settings, _SETTINGS)

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the socket, or the host with its port where that is not 3306."""
        if settings.get("unix_socket"):
            return str(settings["unix_socket"])
        port = settings.get("port") or 3306
        return f"{settings.get('host') or 'localhost'}{'' if port == 3306 else f':{port}'}"

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> Connection[Any]:
        """Connect, with session tracking where the server has it."""
        arguments = {**settings, "client_flag": settings.get("client_flag", 0) | CLIENT.SESSION_TRACK}
        return _Connection(read_only=read_only, **arguments, autocommit=True)

    def alive(self, raw: _Connection) -> bool:
        """Look at the socket: what the server closed can be read from."""
        return raw.alive()

    def reusable(self, raw: _Connection) -> bool:
        """Roll back what is open; a half-read result or a changed autocommit mode is not worth repairing."""
        result = raw._result
        if (result is not None and (result.unbuffered_active or result.has_next)) or not raw.alive():
            return False
        if self.in_transaction(raw):
            try:
                raw.rollback()
            except pymysql.Error:
                return False
        raw.written = False
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT)

    def begin(self, raw: _Connection) -> None:
        """Send BEGIN."""
        raw.begin()

    def commit(self, raw: _Connection) -> None:
        """Send COMMIT."""
        raw.commit()

    def rollback(self, raw: _Connection) -> None:
        """Send ROLLBACK."""
        raw.rollback()

    def in_transaction(self, raw: _Connection) -> bool:
        """Return the flag SERVER_STATUS_IN_TRANS of the latest answer."""
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def take_written(self, raw: _Connection) -> bool:
        """Return what the server told; where it does not tell, every statement outside a transaction counts."""
        if not raw.tells:
            return not self.in_transaction(raw)
        written, raw.written = raw.written, False
        return written

    def read_on(self, raw: _Connection) -> None:
        """Read the further results of a procedure that nobody has asked for."""
        while raw._result is not None and raw._result.has_next:
            raw.next_result()

    def refused_write(self, error: BaseException) -> bool:
        """Errors 1792 and 1836, and 1290 where it names a read-only option."""
        return mysql.refused_write(error)

    def unreachable(self, error: BaseException) -> bool:
        """The codes of a server that is not there, and of a connection that is gone."""
        return isinstance(error, pymysql.OperationalError) and mysql.unreachable(error)

    def rolled_back(self, raw: _Connection, error: Exception) -> bool:
        """A deadlock (1213) takes the whole transaction, and so does a lost connection."""
        return mysql.deadlocked(error) or raw._sock is None


DRIVER: Final = PyMySQLDriver()
