"""A connection of psycopg 3 that records what was committed through it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from replswitch.drivers.postgresql import NO_TWO_PHASE
from replswitch.drivers.postgresql_position import POSITION, WRITES, WRITTEN
from replswitch.drivers.postgresql_statement import CHANGES
from replswitch.drivers.postgresql_tracker import PostgreSQLTracker
from replswitch.drivers.psycopg_cursor import TrackingCursor, tracked
from replswitch.drivers.psycopg_questions import COMMIT, PREPARED_AFTER, QuestionsConnection
from replswitch.drivers.psycopg_server_cursor import tracked_by_server
from replswitch.drivers.written import Written
from replswitch.positions import PostgreSQLPosition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.drivers.postgresql_position import Timelines
    from replswitch.positions import Position

_OK: Final = int(pq.ConnStatus.OK)
_IDLE: Final = pq.TransactionStatus.IDLE
_IN_TRANSACTION: Final = pq.TransactionStatus.INTRANS
_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_ROWS: Final = pq.ExecStatus.TUPLES_OK

_NO: Final = Written.NO  # because looking up a member of an Enum takes longer
_CHANGES: Final = frozenset(tag.encode() for tag in CHANGES)

#: Command tags of statements that remove all prepared statements.
_FORGETS: Final = frozenset({b"DISCARD ALL", b"DEALLOCATE ALL"})


class PsycopgConnection(QuestionsConnection, PostgreSQLTracker):
    """A connection that records what was committed through it.

    Attributes:
        seen: the state of the transaction after the latest statement.
        was_streamed: rows were read one by one since the last commit.
        was_piped: statements have run in the open block of `pipeline`.
        is_behind_pooler: the connection goes through a pooler such as PgBouncer, so each transaction may run in another
            session.
        is_guarded: a pooler has left the session of a slave writable, so each transaction is made read-only (S7).
        begins: a transaction has begun whose BEGIN will be sent together with its first statement.
        is_own_transaction: the open transaction was begun by `streaming`, not by the application.
        is_alone: a statement outside any transaction of the application is running, and its rows are being read.
    """

    read_only_error = psycopg.errors.ReadOnlySqlTransaction
    standby_error = psycopg.errors.CannotConnectNow
    seen: int = _IDLE
    was_streamed = False
    was_piped = False
    is_behind_pooler = False
    is_guarded = False
    begins = False
    is_own_transaction = False
    is_alone = False

    def close(self) -> None:
        """Close the connection. Do nothing in a forked child, which must not end its parent's session (S12)."""
        if self.process == os.getpid():
            super().close()

    def __del__(self, *_: object) -> None:
        """Do nothing, unlike psycopg, which warns. libpq closes the connection in the process that opened it (S12)."""

    def prepare(self, timelines: Timelines, *, read_only: bool) -> None:
        """Prepare a connection that was just opened. Store a master's answer in ``timelines``.

        Raises:
            psycopg.Error: the connection was lost, or it is a master's connection and the server is a standby.
        """
        self.process = os.getpid()
        self.is_reader = read_only
        self.questions = {}
        self.open_polls()
        if not read_only:
            row = self.question(POSITION)
            self.is_behind_pooler = row[10] != self.pgconn.backend_pid
            self.recognise(row, timelines)
        elif self.info.parameter_status("default_transaction_read_only") == "off":
            # A pooler has not passed the setting on. A standby refuses writes even without it, but may be promoted.
            self.is_behind_pooler = self.is_guarded = True

    def cursor(self, name: str = "", **options: Any) -> Any:
        """Return a cursor whose statements are recorded. Its class is a subclass of the application's cursor class."""
        if self.pgconn.status != _OK:
            self._check_connection_ok()
        kind: Any = self.cursor_factory
        if not name and not options and kind is psycopg.Cursor:
            return TrackingCursor(self)
        is_binary = options.pop("binary", False)
        options["row_factory"] = options.get("row_factory") or self.row_factory
        if name:
            server_kind: Any = self.server_cursor_factory
            cursor = tracked_by_server(server_kind)(self, name=name, **options)
        else:
            cursor = tracked(kind)(self, **options)
        if is_binary:
            cursor.format = pq.Format.BINARY
        return cursor

    def question(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        begins, self.begins = self.begins, False
        begins_later = not self.autocommit and self.pgconn.transaction_status == _IDLE
        if begins_later:
            self.autocommit = True
        try:
            return psycopg.Cursor(self, row_factory=tuple_row).execute(sql).fetchone()
        finally:
            self.begins = begins
            if begins_later and not self.closed:
                self.autocommit = False

    # Statements

    def after(self, cursor: Any, status: Position | Written) -> None:
        """Record what a statement has committed, and whether it has changed the session or the transaction's state."""
        now = self.pgconn.transaction_status
        was = self.seen
        self.was_piped = self.was_piped or self._pipeline is not None
        if now != was:
            self.seen, self.news = now, True
        for result in cursor._results:
            if result.status == _ROWS:
                continue
            tag = result.command_status or b""
            word = tag.partition(b" ")[0]
            if tag in _FORGETS:
                self.forget_prepared()
            if word in _CHANGES:
                self.session_changed = True
            elif word == b"COMMIT" and now != _IDLE and not self.is_reader:
                self.note(Written.YES)  # and the same statements have begun another transaction
            elif word == b"ROLLBACK" and was != _IDLE and len(cursor._results) == 1:
                status = Written.NO
        if now == _IDLE and status is not Written.NO and not self.is_reader:
            self.note(status)

    @contextmanager
    def streaming(self, cursor: Any, *, writes: bool = False) -> Iterator[None]:
        """Run a block in which a statement runs that cannot be sent together with queries of replswitch's own.

        Args:
            cursor: the cursor of the statement.
            writes: the statement certainly writes, so the position is queried later. Otherwise, outside a transaction
                on the master, it runs in a transaction of its own, whose commit also queries whether it has written.
        """
        self.is_alone = self.autocommit and not self.in_transaction
        self.is_own_transaction = self.is_alone and ((self.reports_positions and not writes) or self.is_guarded)
        try:
            if self.is_own_transaction:
                self.begin_now()
            self.streams = self.unread = True
            yield
        except BaseException:
            self.streams = self.unread = False
            if self.is_own_transaction and not self.closed:
                self.rollback()
            raise
        else:
            self.streams = self.unread = False
            if self.is_own_transaction:
                self.commit()
        finally:
            self.is_alone = False
            if self.is_own_transaction:
                self.is_own_transaction = False
            else:
                self.after(cursor, Written.ASK)

    def place(self, result: Any) -> Position:
        """Return the position in a result of `WRITTEN`."""
        page, segment = self.sizes
        return PostgreSQLPosition.after_insert(self.timeline, result.get_value(0, 0), page=page, segment=segment)

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Open psycopg's block for a pipeline. At its end, record that its statements may have committed something."""
        is_outer = self._pipeline is None
        try:
            with super().pipeline() as pipeline:
                yield pipeline
        finally:
            if is_outer and self.was_piped:
                self.was_piped = False
                self.seen, self.news = self.pgconn.transaction_status, True
                if self.seen != _IN_TRANSACTION and not self.is_reader:
                    self.note(Written.ASK)

    # Transactions

    def _get_tx_start_command(self) -> bytes:
        """Return psycopg's BEGIN. With `is_guarded`, add READ ONLY, which overrides another mode before it."""
        command = super()._get_tx_start_command()
        return command + b" READ ONLY" if self.is_guarded else command

    def set_read_only(self, value: bool | None) -> None:
        """Set whether transactions refuse writes. A slave's connection stays read-only (S7)."""
        super().set_read_only(value or None if self.is_reader else value)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun."""
        return self.begins or self.pgconn.transaction_status != _IDLE

    def begin_now(self) -> None:
        """Send BEGIN, before a statement that cannot be sent together with it."""
        with self.lock:
            self.wait(self._exec_command(self._get_tx_start_command()))
        self.begun()

    def begun(self) -> None:
        """Record that the server has begun the transaction."""
        self.begins, self.seen, self.news = False, _IN_TRANSACTION, True

    def _start_query(self) -> Any:
        """Send BEGIN first, if psycopg itself sends the first statement of a transaction."""
        if not self.begins:
            yield from super()._start_query()
            return
        yield from self._exec_command(self._get_tx_start_command())
        if self._pipeline is not None:
            yield from self._pipeline._sync_gen()
        self.begun()

    @contextmanager
    def transaction(self, *args: Any, **options: Any) -> Iterator[psycopg.Transaction]:
        """Open psycopg's block for a transaction, and record what it has committed.

        If BEGIN is pending, send it first, so that a savepoint is made. At the end, psycopg itself sends the COMMIT.
        """
        if self.begins:
            self.begin_now()
        is_outer, writes = self.pgconn.transaction_status == _IDLE, False
        with super().transaction(*args, **options) as block:
            yield block
            writes = is_outer and not self.is_reader and self._may_have_written()
        if is_outer:
            self.seen, self.news = self.pgconn.transaction_status, True
        if writes and not block.force_rollback:  # psycopg 3.2 has no status of a block
            self.note(Written.ASK)

    def _may_have_written(self) -> bool:
        """Return whether the open transaction may have written; False if it has failed, so that it cannot commit."""
        if self._pipeline is not None:
            return True
        if self.pgconn.transaction_status != _IN_TRANSACTION:
            return False
        return not self.reports_positions or bool(self.question(WRITES)[0])

    def commit(self) -> None:
        """Commit. Query in the same message whether something was written, and at which position."""
        self.begins = False
        was = self.pgconn.transaction_status
        if not self.reports_positions or was != _IN_TRANSACTION or self._pipeline is not None or self._num_transactions:
            super().commit()  # in a block of transaction(), psycopg refuses it
            self.seen, self.news = self.pgconn.transaction_status, True
            if not self.is_reader and was == _IN_TRANSACTION:
                self.note(Written.ASK)
            return
        questions = (WRITES, COMMIT, WRITTEN)
        with self.lock:
            if self.was_streamed:  # in a pipeline, libpq would now read the first answer row by row, too
                self.was_streamed = False
                self.pgconn.send_query("; ".join(questions).encode())
                answers = self.answers()
            else:
                self.pgconn.enter_pipeline_mode()
                try:
                    before = self.prepare_questions() if self.asked < PREPARED_AFTER else 0
                    self.send(questions)
                    self.pgconn.pipeline_sync()
                    answers = self.answers()[before:]
                finally:
                    self.leave_pipeline()
        self.seen, self.news = self.pgconn.transaction_status, True
        for result in answers:
            if result.status == _FAILED:
                error = psycopg.errors.error_from_result(result)
                self.check_questions(error)
                raise error
        writes, _, place = answers
        if writes.get_value(0, 0) == b"t":
            self.note(self.place(place))

    def follow(self) -> None:
        """In an open transaction, set ``news`` to False, because writes are recorded only when the transaction ends."""
        if self.written is _NO and self.seen == _IN_TRANSACTION == self.pgconn.transaction_status:
            self.news = False

    def rollback(self) -> None:
        """Roll back."""
        self.begins = False
        super().rollback()
        self.seen, self.news = self.pgconn.transaction_status, True

    def tpc_begin(self, *_: object) -> None:
        """Refuse two-phase commits, whose position is not known."""
        raise psycopg.NotSupportedError(NO_TWO_PHASE)

    # WriteTracker

    def ask(self, since: Position | None) -> Position | Written:
        """Return the master's current position, which includes the last commit; `Written.YES` without positions."""
        if not self.reports_positions:
            return Written.YES
        self.last_known_position = self.position_at(*self.question(WRITTEN))
        return self.last_known_position
