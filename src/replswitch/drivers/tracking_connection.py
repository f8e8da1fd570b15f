"""A connection of PyMySQL that records the session state from each answer of the server."""

from __future__ import annotations

import os
import select
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pymysql
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.protocol import MysqlPacket

from replswitch.drivers.mysql import has_positions, is_mariadb, last_written, rows
from replswitch.drivers.mysql_statement import may_commit
from replswitch.drivers.read_only import became_writable, keep_read_only, leaves_trace
from replswitch.drivers.session_track import SESSION_CHANGED, refusing_writes, session_track, status_of, tracking
from replswitch.drivers.written import WriteTracker, Written, later
from replswitch.errors import PositionError
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.positions import Position

# The number of results whose column descriptions a connection keeps, so that it need not parse them again.
_DESCRIPTIONS_KEPT: Final = 100

# The packet that PyMySQL expects after the descriptions of a result's columns. Newer servers do not send it.
_END_OF_COLUMNS: Final = MysqlPacket(b"\xfe\0\0\2\0", "ascii")

# The shortest OK packet after rows: header, two lengths of one byte, status, warnings.
_PLAIN_END: Final = struct.Struct("<3xHH")

# A longer packet that begins with 0xFE is a row, with a first column of 16 MB or more.
_LONGEST_END: Final = 0xFFFFFF


class _Result(MySQLResult):
    """A result that records the session state from the packet after the last row.

    If the server supports it (CLIENT_DEPRECATE_EOF), that packet is an OK packet, with the position of a statement
    that writes and returns rows. PyMySQL itself supports the older EOF packet only.
    """

    connection: Any  # a TrackingConnection until the result is read

    def _get_descriptions(self) -> None:
        # The server describes the columns in the same bytes each time that a statement runs. Parsing them takes a
        # seventh of the time of a short query, so the parsed descriptions are kept.
        connection = self.connection
        packets = [connection._read_packet()._data for _ in range(self.field_count)]
        if not connection.ends_in_ok:
            connection._read_packet()
        known, key = connection.descriptions, (connection.encoding, *packets)
        if key not in known:
            self._parse_descriptions(packets)
            if len(known) == _DESCRIPTIONS_KEPT:
                known.clear()
            known[key] = self.fields, self.converters, self.description  # type: ignore[has-type]  # likewise
        self.fields, self.converters, self.description = known[key]

    def _parse_descriptions(self, packets: list[bytes]) -> None:
        connection, unread = self.connection, iter(packets)
        self.connection = SimpleNamespace(
            decoders=connection.decoders,
            encoding=connection.encoding,
            use_unicode=connection.use_unicode,
            _read_packet=lambda kind=None: _END_OF_COLUMNS if kind is None else kind(next(unread), connection.encoding),
        )
        super()._get_descriptions()  # type: ignore[misc]  # types-PyMySQL leaves it out
        self.connection = connection

    def _check_packet_is_eof(self, packet: MysqlPacket) -> bool:
        # Called for each row, so it reads the data directly instead of through a method.
        data: bytes = packet._data  # type: ignore[attr-defined]  # types-PyMySQL leaves it out
        if data[0] != 0xFE or len(data) >= _LONGEST_END:
            return False
        connection = self.connection
        if connection.ends_in_ok:
            if len(data) == _PLAIN_END.size:  # the common case: nothing was written
                status, self.warning_count = _PLAIN_END.unpack(data)
                if status != connection.server_status:
                    connection.record_answer(status)
            else:
                status, self.warning_count, rest = status_of(packet)
                connection.record_answer(status, rest)
                connection.notify()
        else:
            # The packet consists of a marker, the number of warnings, and the status:
            # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html
            self.warning_count, status = struct.unpack_from("<HH", data, 1)
            connection.record_answer(status)
        self.has_next = bool(status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)
        return True


class TrackingConnection(Connection, WriteTracker):
    """A connection that records the session state from each answer of the server.

    Args:
        read_only: have the database refuse writes (S7).
        address: the address to connect to; None for that of the host in the settings. TLS verifies the host.
        settings: the settings of PyMySQL.
    """

    plain_cursor = pymysql.cursors.Cursor
    learns_after_rows = True

    #: The commits since the last `pop_write_status`.
    written: Position | Written = Written.NO
    #: Whether a commit or a rollback was the latest statement.
    has_ended = False
    #: The counter of changes of a MySQL session when it was last queried.
    changes = 0
    #: Whether the server reports commits at all.
    reports_positions = False
    #: Whether the rows of a result end in an OK packet.
    ends_in_ok = False

    _default_tls: ClassVar[Any] = None

    if TYPE_CHECKING:  # missing in types-PyMySQL
        _sock: Any
        server_capabilities: int
        server_status: int
        _read_timeout: float | None
        _force_close: Callable[[], None]

    def __init__(self, *, read_only: bool, address: str | None = None, **settings: Any) -> None:
        self._begin(read_only, address)
        super().__init__(**settings)

    def _begin(self, read_only: bool, address: str | None) -> None:
        self._read_only = read_only
        self._address = address
        self.process = os.getpid()
        self.descriptions: dict[tuple[object, ...], tuple[Any, Any, Any]] = {}
        self._poll = select.poll()
        self.poll = self._poll.poll

    @classmethod
    def adopt(cls, raw: Any, *, read_only: bool, address: str | None = None) -> None:
        """Turn a PyMySQL connection that is not connected yet into a TrackingConnection, and connect it."""
        raw.__class__ = cls
        raw._begin(read_only, address)
        raw.connect()

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        # PyMySQL tries TLS with every server. Reading the system's certificates for it would take 30 ms each time.
        if sslp:
            return super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # types-PyMySQL leaves it out
        if TrackingConnection._default_tls is None:
            TrackingConnection._default_tls = super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # the stubs leave it out
        return TrackingConnection._default_tls

    def _request_authentication(self) -> None:
        self.host = self._name  # TLS begins below, and verifies the name
        # The server has sent its capabilities. This method chooses the ones to use.
        self.ends_in_ok = bool(self.server_capabilities & CLIENT.DEPRECATE_EOF)
        if self.ends_in_ok:
            self.client_flag |= CLIENT.DEPRECATE_EOF
        super()._request_authentication()  # type: ignore[misc]  # types-PyMySQL leaves it out

    def connect(self, sock: Any = None) -> None:
        """Connect, and prepare the session."""
        # PyMySQL's connect_timeout is only for connecting the socket. A server that is silent after that is gone, too.
        read_timeout, self._read_timeout = self._read_timeout, self.connect_timeout
        self._name, self.host = self.host, self._address or self.host
        try:
            super().connect(sock)
        finally:
            self._read_timeout, self.host = read_timeout, self._name
        self._poll.register(self._sock, select.POLLIN)
        if self._read_only:
            _refuse_writes(self)
        else:
            self.reports_positions = _track_commits(self)
        self.written, self.session_changed = Written.NO, False

    def record_answer(self, status: int, rest: bytes = b"", *, wrote: bool = False) -> None:
        """Record the session state that an answer of the server contains.

        Args:
            status: the status flags in the answer.
            rest: the bytes after the flags and the warnings; empty in a packet that has no room for more.
            wrote: the statement has changed rows, as far as the answer shows.
        """
        if (status ^ self.server_status) & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            self.news = True
        self.server_status = status
        if not status & SESSION_CHANGED:
            return
        self.news = True
        written: Position | Written = Written.NO if rest else Written.ASK  # the packet may have no room for more
        try:
            gtid, changed, writable = session_track(rest) if rest else ("", False, False)
            if self._read_only and (gtid or writable):
                raise became_writable(self, wrote=bool(gtid or wrote))
            self.session_changed = self.session_changed or changed
            if gtid:
                written = MariaDBPosition.parse(gtid) if is_mariadb(self) else MySQLPosition.parse(gtid)
                self.last_known_position = written
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
            written = Written.YES
        if self.reports_positions:
            self.written = later(self.written, written)

    def notify(self) -> None:
        """Call `on_write` if something was written."""
        if self.on_write is not None and self.written is not Written.NO:
            self.on_write(self, False)

    # WriteTracker

    def pop_write_status(self) -> Position | Written:
        """Return the reported commits. If the server reports none, return `Written.YES` outside a transaction."""
        if not self.reports_positions:
            self.news = not self._read_only
            in_transaction = self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
            return Written.NO if self._read_only or in_transaction else Written.YES
        self.news = False
        written = self.written
        if written is not Written.NO:
            self.written = Written.NO
        return written

    def ask(self, since: Position | None) -> Position | Written:
        """Query the GTID of the session's latest write."""
        return last_written(self, since)

    @property
    def owes_results(self) -> bool:  # type: ignore[override]  # it is only read
        """Whether an unbuffered result still has unread rows, or another result follows."""
        result = self._result
        return result is not None and bool(result.has_next or result.unbuffered_active)

    @property
    def streams(self) -> bool:
        """Whether an unbuffered result (of a cursor that reads row by row) still has unread rows."""
        return self._result is not None and bool(self._result.unbuffered_active)

    # Methods of PyMySQL, changed

    def ping(self, reconnect: bool = False) -> None:  # type: ignore[override]  # it accepts True, but ignores it
        """Ping the server, but never reconnect, because PyMySQL would then open another session (S7)."""
        super().ping(reconnect=False)

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """Send a statement, unless it would let a slave's connection write (S7)."""
        text = sql if isinstance(sql, str) else bytes(sql).decode("latin-1")
        self.has_ended = False
        self.session_changed = self.session_changed or leaves_trace(text)
        if self._read_only and not text.startswith("SELECT"):
            keep_read_only(self, text)
        try:
            return super().query(sql, unbuffered)
        except pymysql.Error:
            if may_commit(text):
                self._record_error()
            raise

    def next_result(self, unbuffered: bool = False) -> int:
        """Read the next result of several statements, or of a procedure."""
        try:
            return super().next_result(unbuffered)
        except pymysql.Error:
            self._record_error()
            raise

    def _record_error(self) -> None:
        """Record that a statement may have committed something before its error, which has no session state."""
        if self.reports_positions:
            if not isinstance(self.written, Written):  # else `ask` must also find it
                self.last_known_position = None
            self.written, self.news = later(self.written, Written.ASK), True

    def commit(self) -> None:
        """Commit. If the server does not report commits, treat each commit as a write."""
        super().commit()
        self.has_ended = True
        if self.on_write is not None and not self.reports_positions:
            self.on_write(self, False)

    def rollback(self) -> None:
        """Roll back."""
        super().rollback()
        self.has_ended = True

    def close(self) -> None:
        """Close the connection. In a forked child, send nothing to the server."""
        if self.process == os.getpid():
            super().close()
        else:  # send no QUIT, which would end the parent's session
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
            if not self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                self._record_error()
            raise
        self._result = result
        if result.has_next or result.unbuffered_active:
            self.unread = self.news = True
        if result.server_status is not None:  # an OK packet; the one after rows was recorded already
            wrote = bool(result.affected_rows)
            self.record_answer(result.server_status, result.message, wrote=wrote)  # type: ignore[arg-type]  # it is bytes, or b""
            if self._read_only and result.affected_rows:
                self.session_changed = True  # by SELECT … INTO @variable, which the server does not report
        self.notify()
        return result.affected_rows

    def _read_ok_packet(self) -> Any:
        answer = super()._read_ok_packet()  # type: ignore[misc]  # types-PyMySQL leaves it out
        self.record_answer(answer.server_status, answer.message)
        self.notify()
        return answer


def _refuse_writes(raw: TrackingConnection) -> None:
    """Make the session read-only, and make the server report writes and changes of the session, in one round trip."""
    tracks = bool(raw.server_capabilities & CLIENT.SESSION_TRACK)
    rows(raw, refusing_writes(is_mariadb=is_mariadb(raw), tracks=tracks))


def _track_commits(raw: TrackingConnection) -> bool:
    """Make the server report the position of each commit in its answer. Return False if it cannot."""
    if not has_positions(raw):
        return False
    if not raw.server_capabilities & CLIENT.SESSION_TRACK:
        fall_back_to_clock("The master reports no positions, because it cannot track sessions")
        return False
    rows(raw, tracking(is_mariadb=is_mariadb(raw)))
    return True
