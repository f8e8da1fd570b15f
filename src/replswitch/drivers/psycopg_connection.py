"""A connection of psycopg 3 that asks for the position of a write in the same round trip as its commit."""

from __future__ import annotations

import os
import re
import select
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import generators, pq, waiting
from psycopg._preparing import Prepare  # `_maybe_prepare_gen` needs it

from replswitch.drivers.driver import MUST_STAY_READ_ONLY, Written
from replswitch.drivers.postgresql import (
    CHANGES,
    LEAVES_TRACE,
    NO_TWO_PHASE,
    POSITION,
    TEMPORARY,
    WRITES,
    WRITTEN,
    lets_write,
)
from replswitch.drivers.postgresql_tracker import PostgreSQLTracker

if TYPE_CHECKING:
    from replswitch.positions import Position

_IDLE: Final = pq.TransactionStatus.IDLE
_READ: Final = int(waiting.Wait.R)
_WRITE: Final = int(waiting.Wait.W)
_IN_TRANSACTION: Final = pq.TransactionStatus.INTRANS

#: Statements, by the server's answer, that can write without a transaction of their own that shows it.
_OWN_TRANSACTIONS: Final = ("CALL", "DO")

#: COPY does not work in libpq's pipeline mode.
_COPY: Final = re.compile(rb"\s*COPY\b", re.IGNORECASE)

_WRITES: Final = WRITES.encode()
_WRITTEN: Final = WRITTEN.encode()

#: The server refuses several statements in one message of the extended protocol; then nothing has run.
_SEVERAL: Final = b"exec_parse_message"
_FAILED: Final = pq.ExecStatus.FATAL_ERROR


class TrackingCursor(psycopg.Cursor[Any]):
    """A cursor whose connection records what its statements have written."""

    lastrowid = None  # PostgreSQL has no such thing: INSERT … RETURNING

    status: Position | Written = Written.ASK
    """What the latest statement has written."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement, and record what it has committed."""
        connection: Any = self.connection
        connection.before(query)
        self.status = Written.ASK
        super().execute(query, params, **options)
        connection.after(self, self.status)
        return self

    def _maybe_prepare_gen(self, pgq: Any, *, prepare: Any = None, binary: Any = None) -> Any:
        """Send a statement, and read its results: psycopg's own method, with the questions for a position added."""
        connection: Any = self._conn
        pgconn = self._pgconn
        if (
            not connection.tells
            or connection._pipeline is not None
            or pgconn.transaction_status != _IDLE
            or _COPY.match(pgq.query)
        ):
            yield from super()._maybe_prepare_gen(pgq, prepare=prepare, binary=binary)
            return
        pgconn.enter_pipeline_mode()
        try:
            how, name = self._get_prepared(pgq, prepare)
            if how is Prepare.NO:
                self._execute_send(pgq, force_extended=True, binary=binary)
            else:
                if how is Prepare.SHOULD:
                    self._send_prepare(name, pgq)
                self._send_query_prepared(name, pgq, binary=binary)
            key = connection._prepared.maybe_add_to_cache(pgq, how, name)
            pgconn.send_query_params(_WRITES, None)
            pgconn.pipeline_sync()  # the statement is committed here
            pgconn.send_query_params(_WRITTEN, None)
            pgconn.pipeline_sync()
            yield from generators.send(pgconn)
            answers = yield from _up_to_sync(pgconn)
            written, *_ = yield from _up_to_sync(pgconn)
        finally:
            if pgconn.status == pq.ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        if how is Prepare.SHOULD:
            self._check_results([answers.pop(0)])
        result, writes, *failed = answers  # the commit may fail, by a deferred constraint
        results = [result]
        if _is_several(results) and not pgq.params:
            yield from super()._maybe_prepare_gen(pgq, prepare=False, binary=binary)
            return
        if key is not None:
            connection._prepared.validate(key, how, name, results)
        self._check_results([*results, *failed])
        self._set_results(results)
        self.status = Written.NO
        if writes.get_value(0, 0) == b"t" or (self.statusmessage or "").startswith(_OWN_TRANSACTIONS):
            self.status = connection.place(written.get_value(0, 0).decode())

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Run a statement several times. The position is asked for later."""
        connection: Any = self.connection
        connection.before(query)
        super().executemany(query, params_seq, **options)
        connection.after(self, Written.ASK)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement whose rows are read one by one. The position is queried later."""
        connection: Any = self.connection
        connection.before(query)
        connection.after(self, Written.ASK)  # psycopg's cursor does not show when its rows end
        return super().stream(query, params, **options)

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Copy rows from or to the server. The position is queried later."""
        connection: Any = self.connection
        connection.before(statement)
        connection.after(self, Written.ASK)
        return super().copy(statement, params, **options)


class PsycopgConnection(psycopg.Connection[Any], PostgreSQLTracker):
    """A connection that records what was committed through it.

    Attributes:
        limit: seconds to wait for an answer; None to wait forever.
        seen: the state of the transaction after the latest statement.
    """

    limit: float | None = None
    seen = _IDLE

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Run a step of psycopg. If no answer comes in time, close the connection, on which it may still arrive."""
        return super().wait(gen, *args, **options) if self.limit is None else self._within(gen, self.limit)

    def _within(self, steps: Any, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        polls = self.polls
        try:
            wanted = next(steps)
            while True:
                try:
                    events = polls[wanted](max(deadline - time.monotonic(), 0) * 1000)
                except BaseException:  # a signal, such as Ctrl-C
                    self.pgconn.finish()
                    raise
                if not events:
                    self.timed_out = True
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer came within {seconds:g} s")
                ((_, event),) = events
                # Errors and the end of the connection count as both.
                wanted = steps.send((event & ~select.POLLOUT and _READ) | (event & ~select.POLLIN and _WRITE))
        except StopIteration as done:
            return done.value

    def close(self) -> None:
        """Close. A forked child must not end the session of its parent (S12)."""
        if self.process == os.getpid():
            super().close()

    def __del__(self, *_: object) -> None:
        """Do not warn: the connection is closed when nothing refers to it, but by the process that opened it (S12)."""

    def prepare(self, *, read_only: bool) -> None:
        """Prepare a connection that was just opened."""
        self.process = os.getpid()
        self.is_reader = read_only
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        self.poll = poll.poll
        self.polls = {_READ: poll.poll}
        for wanted, events in ((_WRITE, select.POLLOUT), (_READ | _WRITE, select.POLLIN | select.POLLOUT)):
            poll = select.poll()
            poll.register(self.fileno(), events)
            self.polls[wanted] = poll.poll
        self.cursor_factory = TrackingCursor
        if not read_only:
            self.recognise(self.question(POSITION))

    def question(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        if self.autocommit or self.info.transaction_status is not _IDLE:
            return psycopg.Cursor(self).execute(sql).fetchone()
        self.autocommit = True
        try:
            return psycopg.Cursor(self).execute(sql).fetchone()
        finally:
            if not self.closed:
                self.autocommit = False

    def before(self, query: Any) -> None:
        """Refuse a statement that would let a slave's connection write (S7)."""
        text = (
            query
            if isinstance(query, str)
            else query.decode("latin-1")
            if isinstance(query, bytes)
            else query.as_string(self)
        )
        if self.is_reader and lets_write(text):
            raise psycopg.errors.ReadOnlySqlTransaction(MUST_STAY_READ_ONLY)
        self.session_changed = self.session_changed or LEAVES_TRACE.match(text) is not None
        if not self.is_reader and TEMPORARY.match(text):
            self.session_changed = True

    def after(self, cursor: Any, status: Position | Written) -> None:
        """Record what a statement has done."""
        now = self.info.transaction_status
        if now is not self.seen:
            self.seen, self.news = now, True
        if (cursor.statusmessage or "").split(" ")[0] in CHANGES:
            self.session_changed = True
        if not self.is_reader and now is _IDLE:
            self.note(status)

    def commit(self) -> None:
        """Commit, and ask in the same message whether something was written, and up to where."""
        if not self.tells or self.info.transaction_status is not _IN_TRANSACTION:
            may_write = self.info.transaction_status is _IN_TRANSACTION and not self.is_reader
            super().commit()
            self.seen, self.news = self.info.transaction_status, True
            if may_write:
                self.note(Written.YES)
            return
        cursor = psycopg.Cursor(self).execute(f"{WRITES}; COMMIT; {WRITTEN}")
        (writes,) = cursor.fetchone() or (True,)
        cursor.nextset()
        cursor.nextset()
        self.seen, self.news = _IDLE, True
        self.note(self.place(*(cursor.fetchone() or ())) if writes else Written.NO)

    def rollback(self) -> None:
        """Roll back."""
        super().rollback()
        self.seen, self.news = self.info.transaction_status, True

    def tpc_begin(self, *_: object) -> None:
        """Refuse two-phase commits, whose position is not known."""
        raise psycopg.NotSupportedError(NO_TWO_PHASE)

    # WriteTracker

    def ask(self, since: Position | None) -> Position | Written:
        """Return the master's current position, which is at or after the last commit."""
        if not self.tells:
            return Written.YES
        self.last_known_position = self.place(*self.question(WRITTEN))
        return self.last_known_position


def _up_to_sync(pgconn: Any) -> Any:
    """Read the results in a pipeline up to its next Sync, a step of psycopg. Return them without that of the Sync."""
    results: list[Any] = []
    while not results or results[-1].status != pq.ExecStatus.PIPELINE_SYNC:
        results += yield from generators.fetch_many(pgconn)
    return results[:-1]


def _is_several(results: list[Any]) -> bool:
    """Return whether the server has refused several statements in one message, so that none has run."""
    (result, *_) = results
    field = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION) if result.status == _FAILED else None
    return bool(field == _SEVERAL and result.error_field(pq.DiagnosticField.SQLSTATE) == b"42601")
