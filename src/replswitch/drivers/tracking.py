"""A connection of PyMySQL's that keeps what each answer of the server says of its session."""

from __future__ import annotations

import os
import select
import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pymysql
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.protocol import MysqlPacket

from replswitch.drivers import Written, later
from replswitch.drivers.gtids import has_positions, is_mariadb
from replswitch.drivers.session_track import gtid_told, status_of
from replswitch.errors import PositionError
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from replswitch.positions import Position

# SERVER_SESSION_STATE_CHANGED: the answer tells of a change that the session tracks.
# https://dev.mysql.com/doc/dev/mysql-server/latest/mysql__com_8h.html
_SESSION_CHANGED: Final = 0x4000


# This process, without a call of the system for each statement.
_process = os.getpid()


def _know_process() -> None:
    global _process  # noqa: PLW0603 - it changes in a forked child, and nowhere else
    _process = os.getpid()


os.register_at_fork(after_in_child=_know_process)


# What PyMySQL waits for behind the descriptions of a result's columns, which a server that knows better leaves out.
_END_OF_COLUMNS: Final = MysqlPacket(b"\xfe\0\0\2\0", "ascii")

# An OK packet behind rows that says no more than it must: header, two lengths of one byte, status, warnings.
_PLAIN_END: Final = struct.Struct("<3xHH")

# A longer packet that begins with 0xFE is a row, with a first column of 16 MB or more.
_LONGEST_END: Final = 0xFFFFFF


class _Columns:
    """Stands for the connection while PyMySQL reads the descriptions of a result's columns."""

    __slots__ = ("_connection", "decoders", "encoding", "use_unicode")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.decoders = connection.decoders
        self.encoding = connection.encoding
        self.use_unicode = connection.use_unicode

    def _read_packet(self, packet_type: type[MysqlPacket] = MysqlPacket) -> MysqlPacket:
        if packet_type is MysqlPacket:
            return _END_OF_COLUMNS
        packet: MysqlPacket = self._connection._read_packet(packet_type)
        return packet


class _Result(MySQLResult):
    """A result that keeps what the packet behind the last row says of the session.

    Where the server can (CLIENT_DEPRECATE_EOF) that packet is an OK packet, with the position of what a statement
    that returns rows has written. PyMySQL knows only its predecessor.
    """

    connection: Any  # a TrackingConnection until the result is read

    def _get_descriptions(self) -> None:
        connection = self.connection
        if connection.ends_in_ok:
            self.connection = _Columns(connection)
            try:
                super()._get_descriptions()  # type: ignore[misc]  # types-PyMySQL leaves it out
            finally:
                self.connection = connection
        else:
            super()._get_descriptions()  # type: ignore[misc]  # likewise

    def _check_packet_is_eof(self, packet: MysqlPacket) -> bool:
        # Asked for each row, so without the way through a method.
        data: bytes = packet._data  # type: ignore[attr-defined]  # types-PyMySQL leaves it out
        if data[0] != 0xFE or len(data) >= _LONGEST_END:
            return False
        connection = self.connection
        if connection.ends_in_ok:
            if len(data) == _PLAIN_END.size:  # nothing was written, as mostly
                status, self.warning_count = _PLAIN_END.unpack(data)
                connection.server_status = status
            else:
                status, self.warning_count, end = status_of(data)
                connection.heard(status, data[end:])
        else:
            # Marker, number of warnings, status:
            # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html
            self.warning_count, status = struct.unpack_from("<HH", data, 1)
            connection.heard(status)
        self.has_next = bool(status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)
        return True


class TrackingConnection(Connection):
    """A connection that knows what each answer of the server said of its session.

    Args:
        read_only: let the database refuse writes (S7).
        settings: PyMySQL's own.
    """

    plain_cursor = pymysql.cursors.Cursor

    #: What was committed and not yet taken.
    written: Position | Written = Written.NO
    #: The latest position that was told.
    latest: Position | None = None
    #: How many changes a MySQL had counted for the session when it was last asked.
    changes = 0
    #: Who the server is, as it says itself; None on a slave's.
    identity: Hashable | None = None
    #: Whether the server tells of commits at all.
    tells = False
    #: Whether the rows of a result end in an OK packet.
    ends_in_ok = False

    _default_tls: ClassVar[Any] = None

    if TYPE_CHECKING:  # what types-PyMySQL leaves out
        _sock: Any
        server_capabilities: int
        client_flag: int
        connect_timeout: float | None
        _read_timeout: float | None
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
        if TrackingConnection._default_tls is None:
            TrackingConnection._default_tls = super()._create_ssl_ctx(sslp)  # type: ignore[misc]
        return TrackingConnection._default_tls

    def _request_authentication(self) -> None:
        # The server has told what it can; this says which of it is wanted.
        self.ends_in_ok = bool(self.server_capabilities & CLIENT.DEPRECATE_EOF)
        if self.ends_in_ok:
            self.client_flag |= CLIENT.DEPRECATE_EOF
        super()._request_authentication()  # type: ignore[misc]  # types-PyMySQL leaves it out

    def connect(self, sock: Any = None) -> None:
        """Connect, and prepare the session."""
        # PyMySQL's connect_timeout ends when the socket is connected; a server that says nothing then is gone as well.
        read_timeout, self._read_timeout = self._read_timeout, self.connect_timeout
        try:
            super().connect(sock)
        finally:
            self._read_timeout = read_timeout
        self._poll.register(self._sock, select.POLLIN)
        if self._read_only:
            with self.cursor(self.plain_cursor) as cursor:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
        else:
            self.tells = _track_commits(self)
        self.written = Written.NO

    def heard(self, status: int, rest: bytes = b"") -> None:
        """Keep what an answer said of the session.

        Args:
            status: its flags.
            rest: what followed them; empty in a packet that has no room for more.
        """
        self.server_status = status
        if not status & _SESSION_CHANGED or not self.tells:
            return
        try:
            told = self._committed(gtid_told(rest)) if rest else Written.ASK
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
            told = Written.YES
        self.written = later(self.written, told)

    def _committed(self, gtid: str) -> Position | Written:
        if not gtid:
            return Written.NO
        self.latest = MariaDBPosition.parse(gtid) if is_mariadb(self) else MySQLPosition.parse(gtid)
        return self.latest

    def alive(self) -> bool:
        """Say whether the connection is still open, without a round trip."""
        if self._sock is None or self._process != _process:
            return False  # closed, or a socket that a fork left in two processes: it is the parent's
        result = self._result
        if result is not None and (result.has_next or result.unbuffered_active):
            return True  # what can be read now is the rest of an answer
        # Between statements the server says nothing: what can be read now is its farewell, or the end.
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close the connection, in a forked child without a word to the server."""
        if self._process == _process:
            super().close()
        else:  # without the QUIT that would end the parent's session
            self._force_close()

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result = _Result(self)
        try:
            if unbuffered:
                result.init_unbuffered_query()
            else:
                result.read()
        except pymysql.Error:
            # An error tells nothing of the session, and a procedure may have written before it failed.
            if self.tells and not self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                self.written = later(self.written, Written.ASK)
            raise
        self._result = result
        if result.server_status is not None:  # an OK packet; behind rows it was heard already
            self.heard(result.server_status, result.message)  # type: ignore[arg-type]  # it is bytes, or b""
        return result.affected_rows

    def _read_ok_packet(self) -> Any:
        answer = super()._read_ok_packet()  # type: ignore[misc]  # types-PyMySQL leaves it out
        self.heard(answer.server_status, answer.message)
        return answer


def _track_commits(raw: TrackingConnection) -> bool:
    """Have the server tell of commits that wrote, in the very answer to the commit; say whether it will.

    Only positions are tracked, so that the flag means nothing else.
    """
    if not has_positions(raw):
        return False
    if not raw.server_capabilities & CLIENT.SESSION_TRACK:
        fall_back_to_clock("The master tells no positions, because it cannot track sessions")
        return False
    track = (
        "session_track_system_variables = 'last_gtid'"
        if is_mariadb(raw)
        else "session_track_gtids = OWN_GTID, session_track_system_variables = ''"
    )
    with raw.cursor(raw.plain_cursor) as cursor:
        cursor.execute(
            f"SET SESSION {track}, session_track_schema = OFF, session_track_state_change = OFF, "
            "session_track_transaction_info = OFF"
        )
    return True
