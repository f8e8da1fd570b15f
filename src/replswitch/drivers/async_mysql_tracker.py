"""The write trackers of the connections of aiomysql and asyncmy."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers.mysql import has_positions, is_mariadb, last_written, rows
from replswitch.drivers.mysql_statement import may_commit
from replswitch.drivers.read_only import RUNS_OTHERS, became_writable, keep_read_only, leaves_trace
from replswitch.drivers.session_track import SESSION_CHANGED, refusing_writes, session_track, tracking
from replswitch.drivers.written import WriteTracker, Written, later
from replswitch.errors import PositionError
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from replswitch.drivers import Raw
    from replswitch.positions import Position

# The capability CLIENT_SESSION_TRACK, and two flags of the session's status:
# https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html
SESSION_TRACK: Final = 1 << 23
IN_TRANSACTION: Final = 0x1
_AUTOCOMMIT: Final = 0x2
_MORE_RESULTS: Final = 0x8


class Tracker(WriteTracker):
    """The write tracker of one connection. The functions of `replswitch.drivers.mysql` take it as the connection.

    Args:
        raw: the connection, as SQLAlchemy adapts it.

    Attributes:
        has_run: a command was sent, but its answer was not passed to `record_answer`.
        has_ended: the driver's own commit or rollback was the latest command.
        latest: the text of the latest statement.
        may_be_writable: on a slave's connection, a statement may have ended the read-only mode, but its answer does not
            show whether it has.
        reports_positions: whether each write gets a position; None before the server was queried.
        written: the commits since the last `pop_write_status`.
    """

    plain_cursor = None
    group = ""
    changes = 0
    has_run = has_ended = may_be_writable = False
    latest: Any = ""
    reports_positions: bool | None = None
    written: Position | Written = Written.NO

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        # Whether there may be writes after `last_known_position` that no scope has recorded.
        self._baseline_is_stale = False

    def cursor(self, _: object = None) -> Any:
        """Return SQLAlchemy's cursor, which waits for the server without blocking the event loop."""
        return self._raw.cursor()

    def get_server_info(self) -> str:
        """Return the version that the server has sent in its greeting."""
        return str(self._raw.driver_connection.get_server_info())

    @property
    def status(self) -> int:
        """The flags in the latest answer that the driver has kept."""
        return int(self._raw.driver_connection.server_status or 0)

    def track(self) -> None:
        """Make the server report the position of each commit in its answer. This takes two round trips."""
        self.reports_positions = has_positions(self)
        if self.reports_positions:
            rows(self, tracking(is_mariadb=is_mariadb(self)))
            self.reports_all = bool(self.status & SESSION_CHANGED)  # False if the driver keeps no flags
        self.written, self.has_run = Written.NO, False

    def record_answer(self, status: int | None, rest: bytes | None, *, wrote: bool = False) -> None:
        """Record the session state that an answer of the server contains.

        Args:
            status: the status flags in the answer; None if the driver has not kept them.
            rest: the bytes after the flags; None if the driver has not kept them.
            wrote: the statement has changed rows, or has read a row into a variable.
        """
        self.has_run = False
        if status and not status & SESSION_CHANGED:
            return  # as after most statements
        written: Position | Written = Written.NO
        if status:
            written = Written.ASK if not rest else self._read(rest)
        elif self.status & _AUTOCOMMIT:
            written = Written.ASK
        self.written = later(self.written, written)

    def _read(self, rest: bytes) -> Position | Written:
        try:
            gtid, _, _ = session_track(rest)
            if not gtid:
                return Written.NO
            return MariaDBPosition.parse(gtid) if is_mariadb(self) else MySQLPosition.parse(gtid)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
            return Written.YES

    def record_unknown_answer(self) -> None:
        """Record an error, or an answer that the driver has not kept. A procedure may commit before its error."""
        if not self.status & IN_TRANSACTION or self.may_commit():
            self.written = later(self.written, Written.ASK)

    def record_cancellation(self) -> None:
        """Record that the latest statement may have committed. Its task was cancelled before the answer was read."""
        if self.may_commit():
            self.written = Written.YES

    def may_commit(self) -> bool:
        """Return whether the latest statement may commit the open transaction, from its text.

        Also return True if a result of an earlier statement is unread. The driver reads it before the next statement.
        """
        return bool(self.status & _MORE_RESULTS) or may_commit(self.latest)

    def has_written(self) -> bool:
        """Return whether a statement has committed something, such as a procedure, that was not reported so far."""
        return self.written is not Written.NO

    def may_have_news(self) -> bool:
        """Return False if no command has run that may have written."""
        return not self.reports_all or self.has_run or self.written is not Written.NO

    def pop_write_status(self) -> Position | Written:
        """Return what was committed; `Written.ASK` if the driver has not kept the server's answer to a statement."""
        if self.reports_all:
            written, has_run, self.written, self.has_run = self.written, self.has_run, Written.NO, False
            if has_run and self.status & _AUTOCOMMIT:
                written = later(written, Written.ASK)
            if not isinstance(written, Written):  # else `ask` must also find the writes that are known by now
                self.last_known_position = written
            return written
        return Written.ASK if self.reports_positions is not False else Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Query and return the position of the latest write; `Written.YES` if writes have no positions."""
        if self.reports_positions is None:
            self.reports_positions = has_positions(self)
        if not self.reports_positions:
            return Written.YES
        status = last_written(self, since)
        self.written, self.has_run = Written.NO, False  # the answer includes these writes
        return status

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Discard the status, so that no scope records the write. `refresh_baseline` then queries a newer position.

        ``with_rows`` has no effect, because the position is queried anew even if all statements have returned rows.
        """
        self._baseline_is_stale = True

    def refresh_baseline(self) -> None:
        """Query the position of the latest write, if there may be a write that no scope has recorded."""
        if self._baseline_is_stale:
            self._baseline_is_stale = False
            with suppress(Exception):  # the next statement fails likewise
                self.ask(None)


class Reader(Tracker):
    """The tracker of a connection for slave state, which stays read-only (S7).

    Args:
        raw: the connection, as SQLAlchemy adapts it.
        module: the driver's module, for its exceptions.

    Attributes:
        prepared_others: a prepared statement may run a statement that its text does not show, such as a procedure's.
    """

    prepared_others = False

    def __init__(self, raw: Raw, module: Any) -> None:
        super().__init__(raw)
        self.OperationalError, self.InternalError = module.OperationalError, module.InternalError

    def track(self) -> None:
        """Make the session read-only, and make the server report when this mode ends. This takes one round trip."""
        tracks = bool(self._raw.driver_connection.server_capabilities & SESSION_TRACK)
        rows(self, refusing_writes(is_mariadb=is_mariadb(self), tracks=tracks))
        self.session_changed = False

    def close(self) -> None:
        """Close the connection."""
        self._raw.driver_connection.close()

    def before(self, sql: Any) -> bool:
        """Refuse a statement that would end the read-only mode. Return whether the mode must be set again first."""
        self.latest = text = sql if isinstance(sql, str) else bytes(sql).decode(errors="replace")
        if not text.startswith("SELECT") or ";" in text:  # else it is a single SELECT, which cannot end the mode
            keep_read_only(self, text)
        if "(" in text or ":=" in text:  # else it calls no function and assigns nothing, as most statements
            self.session_changed = self.session_changed or leaves_trace(text)
        may_be_writable, self.may_be_writable = self.may_be_writable, False
        return may_be_writable

    def before_prepared(self, sql: Any = None) -> bool:
        """Refuse a statement that would end the read-only mode. Return whether the mode must be set again first.

        Args:
            sql: the text of the statement to prepare; None before a prepared statement runs.
        """
        if sql is None:
            may_be_writable, self.may_be_writable = self.may_be_writable, self.prepared_others
            return may_be_writable
        may_be_writable = self.before(sql)
        self.prepared_others = self.prepared_others or RUNS_OTHERS.search(self.latest) is not None
        return may_be_writable

    def record_answer(self, status: int | None, rest: bytes | None, *, wrote: bool = False) -> None:
        """Record the session state that an answer of the server contains.

        Raises:
            Exception: the driver's own error, if the statement has ended the read-only mode, or has written.
        """
        self.has_run = False
        self.session_changed = self.session_changed or wrote
        if not status:
            self.record_unknown_answer()
        elif status & SESSION_CHANGED:
            try:
                gtid, changed, writable = session_track(rest or b"")
            except PositionError:  # the driver has not kept the session state, or it is malformed
                self.session_changed = self.may_be_writable = True
                return
            if gtid or writable:
                raise became_writable(self, wrote=bool(gtid or wrote))
            self.session_changed = self.session_changed or changed

    def record_unknown_answer(self) -> None:
        """Record an error, or an answer that the driver has not kept."""
        self.may_be_writable = self.may_be_writable or RUNS_OTHERS.search(self.latest) is not None

    def pop_write_status(self) -> Position | Written:
        """Return `Written.NO`, because a read-only connection cannot write."""
        return Written.NO
