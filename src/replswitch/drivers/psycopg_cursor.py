"""Cursors of psycopg 3 that ask for the position of a write in the same round trip as its commit.

Statements and questions are sent with libpq's functions (`psycopg.pq`), because psycopg's own pipeline takes twice as
long as a statement. psycopg's own methods fetch the rows.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import psycopg
from psycopg import adapt, client_cursor, generators, pq
from psycopg._preparing import Prepare  # the statements that psycopg prepares on a connection

from replswitch.drivers.driver import Written
from replswitch.drivers.postgresql_position import WRITES, WRITTEN
from replswitch.drivers.psycopg_questions import BEGIN, COMMIT, GUARD, PREPARED_AFTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.drivers.postgresql_statement import Statement
    from replswitch.positions import Position

_IDLE: Final = pq.TransactionStatus.IDLE
_TEXT: Final = pq.Format.TEXT
_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_ROWS: Final = pq.ExecStatus.TUPLES_OK
_DONE: Final = pq.ExecStatus.COMMAND_OK

#: The questions after a statement: whether it has written, and up to where.
_WHETHER: Final = (WRITES,)
_WHERE: Final = (WRITTEN,)
_IN_TRANSACTION: Final = (BEGIN, WRITES, COMMIT, WRITTEN)

#: Command tags of statements that can write in a transaction which has ended before the question arrives.
_OWN_TRANSACTIONS: Final = (
    *(b"ALTER", b"ANALYZE", b"CALL", b"CLUSTER", b"CREATE", b"DO", b"DROP", b"REINDEX", b"REPACK", b"VACUUM"),
    b"COMMIT PREPARED",
)

#: The function of the server that refuses several statements in one message of the extended protocol; none has run.
_SEVERAL: Final = b"exec_parse_message"


class TrackingCursor(psycopg.Cursor[Any]):
    """A cursor whose connection records what its statements have written. See `tracked` for other classes of cursors.

    Attributes:
        committed: what the latest statement has committed although it has failed.
    """

    lastrowid = None  # PostgreSQL has no such thing: INSERT … RETURNING
    committed: Position | Written = Written.NO

    def __init__(self, connection: Any, **options: Any) -> None:
        if options or type(self) is not TrackingCursor:
            super().__init__(connection, **options)
            return
        # Like psycopg, but without a copy of the adapters, which takes a tenth of the time of a short query.
        self._conn = connection
        self._pgconn = connection.pgconn
        self._adapters = connection.adapters
        self._row_factory = connection.row_factory
        self.format = _TEXT
        self.arraysize = 1
        self._closed = False
        self._last_query = None
        self._reset()

    @property
    def adapters(self) -> adapt.AdaptersMap:
        """The adapters of this cursor."""
        shared = self._conn.adapters
        if self._adapters is shared:
            self._adapters = adapt.AdaptersMap(shared)
            if hasattr(self, "_loaders_changed"):  # not in psycopg 3.2
                self._adapters._register_loader_callback = partial(self._loaders_changed, ref(self))
        return self._adapters

    def execute(self, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None) -> Any:
        """Run a statement, and record what it has committed."""
        # This does the same as psycopg, in fewer steps: psycopg's own steps take as long as a short query.
        connection: Any = self._conn
        what: Statement = connection.before(query)
        is_idle = self._pgconn.transaction_status == _IDLE
        status: Position | Written = Written.ASK
        if self._closed or connection._pipeline is not None or (is_idle and not connection._autocommit):
            super().execute(query, params, prepare=prepare, binary=binary)
            connection.after(self, status)
            return self
        try:
            with connection.lock:
                if self._last_query is None or self._last_query is not query:
                    shared = connection.adapters
                    self._tx = adapt.Transformer(connection if self._adapters is shared else self)
                    self._last_query = None
                self._reset()
                if params is None and what.encoded is not None and query.__class__ is str:
                    pgq = self._query_cls(self._tx)
                    pgq.query = what.encoded
                else:
                    pgq = self._convert_query(query, params)
                self._query = pgq
                if is_idle and connection.reports_positions:
                    if what.goes_alone:
                        status = self._run_alone(connection, what, pgq, prepare, binary)
                    else:
                        status = self._run_and_ask(connection, what, pgq, prepare, binary)
                elif is_idle and connection.is_guarded:
                    self._run_guarded(connection, pgq, binary)
                else:
                    self._run(connection, pgq, prepare, binary)
                self._last_query = query
        except psycopg.Error:
            # This comes after the lock is released, because the binding may query the position at once.
            committed, self.committed = self.committed, Written.NO
            connection.note(committed)
            raise
        if status is not Written.NO or self._results[0].status != _ROWS or connection.seen != _IDLE:
            connection.after(self, status)
        return self

    def close(self) -> None:
        """Close the cursor. Keep the latest result for its description, which takes long to create."""
        self._closed = True
        self._results = []

    def _run(self, connection: Any, pgq: Any, prepare: bool | None, binary: bool | None) -> None:
        """Run a statement, or several of them."""
        pgconn, prepared = self._pgconn, connection._prepared
        how, name = self._get_prepared(pgq, prepare)
        if how is Prepare.NO:
            self._execute_send(pgq, binary=binary)
        else:
            if how is Prepare.SHOULD:
                self._send_prepare(name, pgq)
                self._check_results(connection.wait(generators.execute(pgconn)))
            self._send_query_prepared(name, pgq, binary=binary)
        key = prepared.maybe_add_to_cache(pgq, how, name)
        self._take(connection, connection.wait(generators.execute(pgconn)), key, how, name)

    def _run_guarded(self, connection: Any, pgq: Any, binary: bool | None) -> None:
        """Run a statement in a transaction that refuses writes."""
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_query_params(GUARD.encode(), None)
            self._execute_send(pgq, force_extended=True, binary=binary)
            pgconn.pipeline_sync()
            answers = connection.answers()
        finally:
            connection.leave_pipeline()
        self._check_results(answers)
        self._set_results(answers[1:2])

    def _run_alone(
        self, connection: Any, what: Statement, pgq: Any, prepare: bool | None, binary: bool | None
    ) -> Position | Written:
        """Run a statement with which no question can be sent. Return what it has written."""
        try:
            self._run(connection, pgq, prepare, binary)
        except psycopg.Error:  # what ran before the error may be committed
            self.committed = Written.ASK if self._pgconn.transaction_status == _IDLE else Written.YES
            raise
        return Written.NO if what.is_plain and len(self._results) == 1 else Written.ASK

    def _run_and_ask(
        self, connection: Any, what: Statement, pgq: Any, prepare: bool | None, binary: bool | None
    ) -> Position | Written:
        """Run a statement outside a transaction on the master. Return what it has written."""
        pgconn, may_write, before = self._pgconn, what.may_write, 0
        how, name = self._get_prepared(pgq, prepare)
        pgconn.enter_pipeline_mode()
        try:
            if connection.asked < PREPARED_AFTER:
                before = connection.prepare_questions()
            if how is Prepare.NO:
                self._execute_send(pgq, force_extended=True, binary=binary)
            else:
                if how is Prepare.SHOULD:
                    self._send_prepare(name, pgq)
                    before += 1
                self._send_query_prepared(name, pgq, binary=binary)
            key = connection._prepared.maybe_add_to_cache(pgq, how, name)
            if not may_write:
                connection.send(_WHETHER)
            elif what.changes_rows:  # the statement joins the transaction that begins after it
                connection.send(_IN_TRANSACTION)
            else:  # some statements run in no transaction, and others in several
                connection.send(_WHETHER)
                pgconn.pipeline_sync()  # it is committed here
                connection.send(_WHERE)
            pgconn.pipeline_sync()
            answers = connection.answers()
            if may_write and not what.changes_rows:
                answers += connection.answers()
        finally:
            connection.leave_pipeline()
        if before:
            if answers[before - 1].status == _FAILED:  # the statement could not be prepared
                before -= 1
            del answers[:before]
        result, status = answers[0], Written.NO
        if result.status == _FAILED and _is_several(self, pgq, result):
            what.goes_alone = True
            return self._run_alone(connection, what, pgq, prepare, binary)
        failed = next((each for each in answers if each.status == _FAILED), None)  # perhaps at the commit
        if failed is not None:
            if what.commits:
                self.committed = connection.place(answers[-1]) if answers[-1].status == _ROWS else Written.ASK
            result = failed
        else:
            writes = answers[2 if len(answers) > 3 else 1].get_value(0, 0) == b"t"
            if writes or (result.status == _DONE and result.command_status.startswith(_OWN_TRANSACTIONS)):
                status = connection.place(answers[-1]) if may_write else Written.ASK
                what.may_write = True
        if key is not None or result.status != _ROWS:
            self._take(connection, [result], key, how, name)
        else:
            self._set_results([result])
        return status

    def _take(self, connection: Any, results: list[Any], key: Any, how: Any, name: bytes) -> None:
        """Take the results of a statement."""
        prepared = connection._prepared
        if key is not None:
            prepared.validate(key, how, name, results)
        self._check_results(results)
        self._set_results(results)
        if prepared._to_flush:
            connection.wait(prepared.maintain_gen(connection))

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Run a statement several times. The position is queried later."""
        connection: Any = self._conn
        connection.before(query)
        if connection.is_guarded:
            with connection.streaming(self):
                super().executemany(query, params_seq, **options)
            return
        try:
            super().executemany(query, params_seq, **options)
        finally:
            connection.after(self, Written.ASK)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Run a statement whose rows are read one by one."""
        connection: Any = self._conn
        connection.before(query)
        with connection.streaming(self):
            connection.was_streamed = True
            yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Copy rows from or to the server."""
        connection: Any = self._conn
        what: Statement = connection.before(statement)
        with connection.streaming(self, writes=what.copies_in), super().copy(statement, params, **options) as copy:
            yield copy

    # stream() and copy() in two steps. If the first step fails, the statement can run again on another server.

    def begin_stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Run a statement, wait for its first row, and return an iterator over all rows."""
        rows = self.stream(query, params, **options)
        return chain(*([row] for row in islice(rows, 1)), rows)

    def begin_copy(self, statement: Any, params: Any = None, **options: Any) -> ExitStack:
        """Begin to copy. Return the open context; its attribute ``copy`` is psycopg's object."""
        stack = ExitStack()
        stack.copy = stack.enter_context(self.copy(statement, params, **options))  # type: ignore[attr-defined]  # added here
        return stack


@cache
def tracked(kind: type[Any]) -> type[Any]:
    """Return a class of cursors like ``kind`` whose statements are recorded. The methods of ``kind`` come first."""
    if issubclass(kind, TrackingCursor):
        return kind
    if issubclass(TrackingCursor, kind):  # psycopg's own class
        return TrackingCursor
    return type(kind.__name__, (kind, TrackingCursor), {"__module__": __name__})


def _is_several(cursor: TrackingCursor, pgq: Any, result: Any) -> bool:
    """Return whether the server has refused several statements in one message, so that none has run."""
    if pgq.params and not isinstance(cursor, client_cursor.ClientCursorMixin):
        return False
    field = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION)
    return bool(field == _SEVERAL and result.error_field(pq.DiagnosticField.SQLSTATE) == b"42601")
