"""Cursors of psycopg 3 whose connection records what their statements have written."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import psycopg
from psycopg import adapt, pq
from psycopg._queries import MAX_CACHED_STATEMENT_PARAMS, _query2pg  # finds the placeholders of a statement

from replswitch.drivers.psycopg_running import RunningCursor
from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.drivers.postgresql_statement import Statement
    from replswitch.positions import Position

_IDLE: Final = int(pq.TransactionStatus.IDLE)
_ROWS: Final = int(pq.ExecStatus.TUPLES_OK)

# Looking up a member of an Enum takes longer.
_NO: Final = Written.NO
_ASK: Final = Written.ASK

_Transformer: Final = adapt.Transformer

#: The names of psycopg's attributes that convert statements, of its methods that prepare them, of those that
#: send them, and of those that it calls after a statement.
_CONVERTING: Final = ("_convert_query", "_query_cls")
_PREPARING: Final = ("_get_prepared", "_send_query_prepared")
_SENDING: Final = ("_get_prepared", "_execute_send")
_TAKING: Final = ("_check_results", "_set_results", "_select_current_result", "_make_row_maker")


class TrackingCursor(RunningCursor):
    """A cursor that records on its connection what its statements have written. `tracked` makes subclasses.

    Attributes:
        is_used: a statement has run.
    """

    lastrowid = None  # PostgreSQL has no such value; applications use INSERT … RETURNING
    is_used = False

    # The state before the first statement, so that a new cursor need not set it.
    arraysize = 1
    format = pq.Format.TEXT
    pgresult: Any = None
    _closed = False
    _execmany_returning: bool | None = None
    _iresult = 0
    _last_query: Any = None
    _pos = 0
    _query: Any = None
    _rowcount = -1
    _statusmessage: bytes | None = None

    def __init__(self, connection: Any, **options: Any) -> None:
        if options:
            super().__init__(connection, **options)
            return
        # This does what psycopg does, except for a copy of the adapters, which takes a tenth of a short query's time.
        self._conn = connection
        self._pgconn = connection.pgconn
        self._adapters = connection._adapters or connection.adapters
        self._row_factory = connection.row_factory
        self._results = []

    @property
    def adapters(self) -> adapt.AdaptersMap:
        """The adapters of this cursor."""
        shared = self._conn.adapters
        if self._adapters is shared:
            self._adapters = adapt.AdaptersMap(shared)
            self._last_query = None  # so that the next statement uses them
            if hasattr(self, "_loaders_changed"):  # not in psycopg 3.2
                self._adapters._register_loader_callback = partial(self._loaders_changed, ref(self))
        return self._adapters

    def execute(self, query: Any, params: Any = None, *, prepare: Any = None, binary: Any = None) -> Any:
        """Run a statement, and record what it has committed."""
        # This does the same as psycopg, in fewer steps, because psycopg's own steps take as long as a short query.
        connection: Any = self._conn
        what: Statement = connection.before(query)
        status: Position | Written = _ASK
        if self._closed or connection._pipeline is not None:
            self.is_used = True
            super().execute(query, params, prepare=prepare, binary=binary)
            connection.after(self, status)
            return self
        is_idle = self._pgconn.transaction_status == _IDLE
        begins = is_idle and (connection.begins or not connection._autocommit)
        if begins and what.goes_alone and not what.is_plain:
            connection.begin_now()
            is_idle = begins = False
        try:
            with connection.lock:
                if self._last_query is None or self._last_query is not query:
                    shared = connection._adapters
                    self._tx = _Transformer(connection if self._adapters is shared else self)
                    self._last_query = None
                if self.is_used:
                    self._reset()
                self.is_used = True
                encoded = what.encoded if query.__class__ is str else None
                if encoded is None or not (params is None or self.converts_as_usual):
                    pgq = self._convert_query(query, params)
                else:
                    pgq = self._query_cls(self._tx)
                    if params is None:
                        pgq.query = encoded
                    else:
                        _convert(pgq, encoded, params)
                self._query = pgq
                if not is_idle:
                    self._run(connection, pgq, prepare, binary)
                elif begins:
                    self._run_first(connection, what, pgq, prepare, binary)
                elif connection.reports_positions:
                    if what.goes_alone:
                        status = self._run_alone(connection, what, pgq, prepare, binary)
                    elif (
                        what.joins
                        and connection._prepared.prepare_threshold is None
                        and query.__class__ is str
                        and self.sends_as_usual
                        and (self.merges or not pgq.params)
                        and not (self.format if binary is None else binary)
                    ):  # psycopg itself would send a text, too, and not prepare it
                        status = self._run_joined(connection, what, pgq)
                    else:
                        status = self._run_and_ask(connection, what, pgq, prepare, binary)
                elif connection.is_guarded:
                    self._run_guarded(connection, pgq, binary)
                else:
                    self._run(connection, pgq, prepare, binary)
                self._last_query = query
        except psycopg.Error as error:
            connection.check_questions(error)
            # This comes after the lock is released, because the binding may query the position at once.
            committed, self.committed = self.committed, Written.NO
            connection.note(committed)
            if (begins or not is_idle) and not connection.is_reader:
                connection.note_error(what, is_idle=self._pgconn.transaction_status == _IDLE)
            raise
        except BaseException:  # from the handler of a signal, such as a time limit
            connection.note_cancellation(what)
            raise
        results = self._results
        if (
            (what.changes_rows or results[0].status == _ROWS)
            and len(results) == 1
            and self._pgconn.transaction_status == connection.seen
        ):  # neither the session nor the state of its transaction has changed
            if status is not _NO and connection.seen == _IDLE and not connection.is_reader:
                connection.note(status)
        else:
            connection.after(self, status)
        return self

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""
        result = self.pgresult
        if self._closed or result is None or result.status != _ROWS:
            return super().fetchone()  # raises psycopg's own error
        position = self._pos
        if position >= result.ntuples:
            return None
        row = self._tx.load_row(position, self._make_row)
        self._pos = position + 1
        return row

    def close(self) -> None:
        """Close the cursor. Keep the latest result, so that a description is created only if it is read."""
        self._closed = True
        self._results = []

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        """Run a statement several times. The position is queried later."""
        connection: Any = self._conn
        connection.before(query)
        self.is_used = True
        if connection.begins:
            connection.begin_now()
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
            connection.was_streamed = self.is_used = True
            yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Copy rows from or to the server."""
        connection: Any = self._conn
        what: Statement = connection.before(statement)
        self.is_used = True
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


def _convert(pgq: Any, query: bytes, params: Any) -> None:
    """Convert a statement in ASCII and its parameters. This does what psycopg's ``convert`` does, in half the time."""
    if len(params) > MAX_CACHED_STATEMENT_PARAMS:
        pgq.convert(query, params)
        return
    pgq.query, pgq._want_formats, pgq._order, pgq._parts = _, formats, order, parts = _query2pg(query, "ascii")
    if params.__class__ is not tuple or order is not None or len(params) != len(parts) - 1:
        pgq.dump(params)  # raises psycopg's own error, if the parameters do not fit
        return
    transformer = pgq._tx
    pgq.params = transformer.dump_sequence(params, formats)
    pgq.types, pgq.formats = transformer.types or (), transformer.formats


@cache
def tracked(kind: type[Any]) -> type[Any]:
    """Return a subclass of ``kind`` whose statements are recorded. The methods of ``kind`` take precedence."""
    if issubclass(kind, TrackingCursor):
        return kind
    if issubclass(TrackingCursor, kind):  # psycopg's own class
        return TrackingCursor
    merges = issubclass(kind, psycopg.ClientCursor)
    usual = {
        "merges": merges,
        "sends_as_usual": _is_usual(kind, _SENDING, psycopg.ClientCursor if merges else psycopg.Cursor),
        "converts_as_usual": _is_usual(kind, _CONVERTING),
        "prepares_as_usual": _is_usual(kind, _PREPARING),
        "takes_as_usual": _is_usual(kind, _TAKING),
    }
    return type(kind.__name__, (kind, TrackingCursor), {"__module__": __name__, **usual})


def _is_usual(kind: type[Any], names: tuple[str, ...], stock: type[Any] = psycopg.Cursor) -> bool:
    """Return whether a class inherits the attributes with these names from a class of psycopg."""
    return all(getattr(kind, name) is getattr(stock, name) for name in names)
