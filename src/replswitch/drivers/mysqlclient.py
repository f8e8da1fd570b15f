"""The driver mysqlclient for MariaDB and MySQL.

mysqlclient does not show the session state that the server sends with each result. So the position of a write is
queried once, before the scope next reads from a slave, or before the response is sent.
"""

from __future__ import annotations

import os
import re
import select
import weakref
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import MySQLdb.connections
import MySQLdb.cursors

from replswitch.drivers import Fault, WriteTracker, Written
from replswitch.drivers.mysql import MySQLFamilyDriver, has_positions, innermost, is_mariadb, last_written
from replswitch.drivers.mysql_settings import refuse_verification, with_timeouts
from replswitch.drivers.mysql_statement import CONTROL, leaves_open
from replswitch.drivers.one_host import at_address
from replswitch.drivers.read_only import RUNS_OTHERS, STAY_READ_ONLY, check_read_only, keep_read_only, leaves_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replswitch.positions import Position

_OUT_OF_SYNC: Final = 2014  # CR_COMMANDS_OUT_OF_SYNC: a result is unread

# mysqlclient's `Connection.query` only calls this function. Calling it directly saves one call per statement.
_send: Final[Any] = MySQLdb._mysql.connection.query

# The part of the read time-out after which a lost connection counts as timed out.
_NEARLY: Final = 0.95

# On the master, these statements change the session. On a slave, all without rows do, except BEGIN, COMMIT and so on.
_CHANGE: Final = re.compile(rb"\s*(?:SET|USE|PREPARE|LOCK|HANDLER|CREATE\s+TEMPORARY)\b", re.IGNORECASE)

_STOCK: Final[Any] = MySQLdb.connections.Connection


class _Stream(MySQLdb._mysql.result):
    """A result that its cursor reads row by row, and that records when it has been read to its end."""

    ended = False

    def fetch_row(self, maxrows: int = 1, how: int = 1) -> Any:
        rows = super().fetch_row(maxrows, how)  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        self.ended = self.ended or not maxrows or len(rows) < maxrows
        return rows

    def discard(self) -> None:
        self.ended = True
        super().discard()


class _Connection(MySQLdb.connections.Connection, WriteTracker):
    """A read-only connection (S7). It can check whether it is alive, and a forked child does not close it.

    Args:
        settings: the settings of mysqlclient.
    """

    plain_cursor = MySQLdb.cursors.Cursor
    unread = True  # mysqlclient does not show whether another result follows; after a single SELECT none does

    #: Whether the connection is read-only (S7); whether a procedure may have ended this mode, so that it is set again.
    stays_read_only = True
    may_be_writable = False

    #: A reference to the latest result that is read row by row.
    stream: Callable[[], _Stream | None] | None = None
    #: On the master: a statement may have written since the last `pop_write_status`.
    may_have_written = False
    #: A transaction is open, as far as the text of the statements shows.
    in_transaction = False
    #: A statement may have begun or ended a transaction; the text does not always show it.
    may_be_open = False
    #: When the latest statement was sent, by `time.monotonic`, and its text.
    asked_at = 0.0
    latest: bytes | str = b""

    def __init__(self, **settings: Any) -> None:
        self.process = os.getpid()
        super().__init__(**settings)
        self.prepare(**settings)

    def prepare(self, **settings: Any) -> None:
        """Prepare a connection that was just opened with these settings."""
        self.limit: float = settings.get("read_timeout") or inf
        self.process = os.getpid()
        poll = select.poll()
        self.poll = poll.poll
        poll.register(self.fileno(), select.POLLIN)  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        self._begin()

    def _begin(self) -> None:
        """Make the session of a new connection read-only. The connection to the master overrides this."""
        self.query(STAY_READ_ONLY)

    def query(self, query: Any) -> None:
        self.may_have_written, self.asked_at, self.latest = True, monotonic(), query
        # Most statements are a single SELECT without a call or an assignment, which leaves the session unchanged.
        self.unread = unread = type(query) is not bytes or not query.startswith(b"SELECT") or b";" in query
        text = ""
        if unread or b"(" in query or b":=" in query:
            text = query if isinstance(query, str) else bytes(query).decode("latin-1")
            self.session_changed = leaves_trace(text) or self.session_changed
        if unread and self.stays_read_only:
            keep_read_only(self, text)
        if self.may_be_writable and not self.streams:
            self.may_be_writable = False
            _send(self, STAY_READ_ONLY)
        _send(self, bytes(query) if isinstance(query, bytearray) else query)
        if unread and self.stays_read_only and RUNS_OTHERS.search(text):
            self.may_be_writable = True

    def use_result(self) -> Any:
        if not self.field_count():  # type: ignore[no-untyped-call]  # likewise
            return None
        stream = _Stream(self, 1, self.converter)
        self.stream, self.unread = weakref.ref(stream), True
        return stream

    @property
    def streams(self) -> bool:
        """Whether an unbuffered result (of a cursor that reads row by row) still has unread rows."""
        stream = None if self.stream is None else self.stream()
        return stream is not None and not stream.ended

    owes_results = streams

    def close(self) -> None:
        self._leave_to_parent()
        super().close()  # type: ignore[no-untyped-call]  # likewise

    def __del__(self) -> None:
        self._leave_to_parent()

    def _leave_to_parent(self, getpid: Any = os.getpid, files: Any = (os.open, os.dup2, os.close)) -> None:
        """Detach the socket in a forked child, because closing the connection would end the parent's session (S12)."""
        # The functions are arguments, because an ending interpreter clears modules before it frees connections.
        if self.open and self.process != getpid():
            open_, dup2, close = files
            nowhere = open_("/dev/null", 2)  # for writing and reading
            dup2(nowhere, self.fileno())  # type: ignore[no-untyped-call]  # likewise
            close(nowhere)

    def follow(self) -> None:
        """Record whether the latest statement has begun or ended a transaction, or has changed the session."""
        control = is_open = None
        if not self.field_count():  # type: ignore[no-untyped-call]  # likewise
            text = self.latest.encode(errors="replace") if isinstance(self.latest, str) else self.latest
            control = CONTROL.match(text)
            is_open = leaves_open(text, control)
            self.may_be_open = self.may_be_open or control is not None
            if control is not None and control["call"] and self.stays_read_only and self.affected_rows():  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
                self.may_be_writable = False  # else the query would set the mode again
                check_read_only(self, text)
                self.may_be_writable = True  # SET TRANSACTION does not show in the variable
            if control is None or control["call"]:
                self.session_changed = self.session_changed or self.changes_session(text)
        elif self.unread and self.stays_read_only:  # a procedure may return rows, and change the session as well
            call = CONTROL.match(self.latest.encode(errors="replace") if isinstance(self.latest, str) else self.latest)
            self.session_changed = self.session_changed or (call is not None and call["call"] is not None)
        if is_open is not None:
            self.in_transaction = is_open
        elif control is None or control["call"]:
            may_begin = control is not None or self.field_count() or self.affected_rows()  # type: ignore[no-untyped-call]  # likewise
            if may_begin and not self.get_autocommit():  # type: ignore[no-untyped-call]  # likewise
                self.in_transaction = True

    def changes_session(self, text: bytes) -> bool:
        """Return whether a statement without rows has changed the session. On a read-only link, assume that it has."""
        return True

    # WriteTracker

    def pop_write_status(self) -> Position | Written:
        """Return `Written.NO`, because a connection to a slave cannot write."""
        return Written.NO


class _MasterConnection(_Connection):
    """A connection to the master. It records whether a statement may have written."""

    stays_read_only = False
    #: Whether each write gets a position; None before the server was asked.
    reports_positions: bool | None = None
    #: There may be writes later than `last_known_position` that no scope has recorded.
    baseline_is_stale = False
    #: All statements since the last query of the position have returned rows.
    only_rows = True
    #: The counter of changes of a MySQL session at the last query of the position.
    changes = 0

    def _begin(self) -> None:
        self.may_have_written = False  # only its settings were sent
        # On MySQL, `ask` must know whether all statements have returned rows. On MariaDB it need not.
        self.learns_after_rows = not is_mariadb(self)

    def store_result(self) -> Any:
        # Ask only after results that are stored, because no query can be sent while a result is read row by row.
        result = super().store_result()  # type: ignore[no-untyped-call]  # likewise
        if self.on_write is not None:
            self.on_write(self, True)
        return result

    def commit(self) -> None:
        super().commit()  # type: ignore[no-untyped-call]  # likewise
        if self.on_write is not None:
            self.may_have_written = True
            self.on_write(self, False)

    def changes_session(self, text: bytes) -> bool:
        """Return whether the text shows a change of the session. The statement has no rows, so it may be an UPDATE."""
        return _CHANGE.match(text) is not None

    def pop_write_status(self) -> Position | Written:
        """Return `Written.ASK` if a statement may have written; `Written.YES` if the server reports no positions.

        A statement that returned rows may have written, too, such as MariaDB's INSERT … RETURNING or a function call.
        After such a statement, the next call returns `Written.ASK` again, as a procedure may write after its rows.
        """
        if not self.may_have_written or self.in_transaction:
            return Written.NO
        self.may_have_written = self.has_rows = has_rows = bool(self.open and self.field_count())  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        if not has_rows:
            self.only_rows = False
        return Written.YES if self.reports_positions is False else Written.ASK

    def ask(self, since: Position | None) -> Position | Written:
        """Query and return the position of the latest write; `Written.YES` if the server reports no positions."""
        before = self.may_have_written, self.latest  # restored below, because the queries are not the application's
        if self.reports_positions is None:
            self.reports_positions = has_positions(self, identify=False)
        written = last_written(self, since, only_rows=self.only_rows) if self.reports_positions else Written.YES
        (self.may_have_written, self.latest), self.only_rows = before, True
        return written

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Discard the status, so that no scope records the write. `refresh_baseline` then queries a newer position."""
        # A statement that returned rows has seldom written, so it is dropped without a query, unless ``with_rows``.
        self.baseline_is_stale = self.baseline_is_stale or with_rows or not self.has_rows

    def refresh_baseline(self) -> None:
        """Query the position of the latest write, if there may be a write that no scope has recorded."""
        if self.baseline_is_stale and not self.streams:
            self.baseline_is_stale = False
            try:
                self.ask(None)
            except MySQLdb.Error as error:
                if not DRIVER.is_gone(error):
                    raise
                # The next statement fails in the same way, and is then handled as one that was not sent.


class MySQLClientDriver(MySQLFamilyDriver):
    """The `replswitch.drivers.Driver` for mysqlclient, which must query the position of each commit."""

    module = MySQLdb
    must_ask = prefers_host = True

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port. Refuse settings with which TLS would verify the address and not the name."""
        refuse_verification(what, settings)
        return super().host_to_look_up(settings, what)

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> _Connection:
        """Open a connection in autocommit mode. With ``read_only``, the session itself refuses writes (S7)."""
        kind = _Connection if read_only else _MasterConnection
        arguments = {**at_address(with_timeouts(settings, read_only=read_only)), "autocommit": True}
        if MySQLdb.connect is not MySQLdb.Connect:  # a tool has wrapped connect(), to see connections (F6)
            raw: Any = MySQLdb.connect(**arguments)
            inner: Any = innermost(raw)
            if type(inner) is _STOCK:
                inner.__class__ = kind
                inner.prepare(**arguments)
                return raw  # type: ignore[no-any-return]  # the tool's proxy has the same methods
            raw.close()
        return kind(**arguments)

    def alive(self, raw: _Connection) -> bool:
        """Return whether the connection is open. Data to read means that it is closed, except after a procedure."""
        return super().alive(raw) or (raw.may_be_writable and bool(raw.open) and raw.process == os.getpid())

    def reusable(self, raw: _Connection) -> bool:
        """Roll back an open transaction. Return False if results are unread, or the session has changed (S11)."""
        if raw.session_changed or not self.alive(raw):
            return False
        try:
            if raw.next_result() != -1:  # type: ignore[no-untyped-call]  # likewise
                return False
            if raw.in_transaction or raw.may_be_open:
                self.rollback(raw)
        except MySQLdb.Error:
            return False
        raw.may_have_written = False
        return bool(raw.get_autocommit())  # type: ignore[no-untyped-call]  # likewise

    def begin(self, raw: _Connection) -> None:
        """Send BEGIN."""
        raw.query("BEGIN")
        raw.in_transaction = True

    def commit(self, raw: _Connection) -> None:
        """Commit."""
        raw.commit()  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        raw.in_transaction = False

    def rollback(self, raw: _Connection) -> None:
        """Roll back. A commit by a statement of the application, such as DDL, stays recorded."""
        raw.rollback()  # type: ignore[no-untyped-call]  # likewise
        raw.in_transaction = raw.may_be_open = False

    def in_transaction(self, raw: _Connection) -> bool:
        """Return whether `begin` or a statement has begun a transaction that is open."""
        return raw.in_transaction

    def drain_results(self, raw: _Connection) -> None:
        """Read a procedure's further results that the application has not read. A cursor itself reads its rows."""
        try:
            while raw.next_result() == 0:  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
                raw.discard_result()
        except MySQLdb.ProgrammingError as error:
            if error.args[0] != _OUT_OF_SYNC:
                raise

    def classify(self, error: BaseException, raw: _Connection | None = None) -> Fault:
        """Return the meaning of an error by its code and the elapsed time. Messages do not mention time-outs."""
        fault = super().classify(error, raw)
        if fault is Fault.LOST and raw is not None and monotonic() >= raw.asked_at + _NEARLY * raw.limit:
            return Fault.TIMED_OUT
        return fault


DRIVER: Final = MySQLClientDriver()
