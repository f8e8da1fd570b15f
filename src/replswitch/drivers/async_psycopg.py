"""The driver psycopg 3 with asyncio for PostgreSQL, as SQLAlchemy's ``AsyncEngine`` uses it."""

from __future__ import annotations

import asyncio
import re
import select
from contextlib import suppress
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import generators, pq, waiting
from psycopg.rows import tuple_row

from replswitch.drivers.async_postgresql import AsyncPostgreSQLDriver, AsyncTracker
from replswitch.drivers.postgresql import NO_RESPONSE, NO_TWO_PHASE, OK, READ_TIMEOUT
from replswitch.drivers.postgresql_position import WRITES, WRITTEN
from replswitch.drivers.postgresql_statement import CHANGES
from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers.driver import Raw
    from replswitch.drivers.postgresql_statement import Statement

_IDLE: Final = pq.TransactionStatus.IDLE
_OUTSIDE: Final = frozenset({_IDLE, pq.TransactionStatus.UNKNOWN})
_IN_TRANSACTION: Final = pq.TransactionStatus.INTRANS
_BROKEN: Final = pq.ConnStatus.BAD
_FAILED: Final = pq.ExecStatus.FATAL_ERROR

# Several statements in one message, unlike those in a pipeline, need not be prepared.
_COMMIT: Final = f"{WRITES}; COMMIT; {WRITTEN}".encode()

# If this is in the text of a failed connect, the server has answered.
_ANSWERED: Final = re.compile("FATAL|SSL")


class _Recorded:
    """A mixin for cursors, which records each statement on the connection."""

    if TYPE_CHECKING:
        _conn: Any
        _results: list[Any]

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement. Return an awaitable."""
        what = self._conn.before(query)
        running = super().execute(query, *args, **options)  # type: ignore[misc]  # of psycopg's class
        return running if what.joins else self._followed(running, what)

    async def _followed(self, running: Any, what: Statement) -> Any:
        """Run a statement that is more than a single read, and record what it has committed or changed."""
        try:
            made = await running
        except psycopg.Error:
            self._conn.after_error(what)
            raise
        except BaseException:  # the task was cancelled
            self._conn.note_cancellation(what)
            raise
        self._conn.after(self._results)
        return made

    async def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """Run a statement several times."""
        self._conn.before(query)
        await super().executemany(query, *args, **options)  # type: ignore[misc]  # likewise

    def stream(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement whose rows are read one by one."""
        self._conn.before(query)
        return super().stream(query, *args, **options)  # type: ignore[misc]  # likewise

    def copy(self, statement: Any, *args: Any, **options: Any) -> Any:
        """Copy rows from or to the server."""
        self._conn.before(statement)
        return super().copy(statement, *args, **options)  # type: ignore[misc]  # likewise


@cache
def _recorded(kind: Any) -> Any:
    """Return a class of cursors like ``kind`` whose statements are recorded on the connection."""
    return kind if issubclass(kind, _Recorded) else type(kind.__name__, (_Recorded, kind), {"__module__": __name__})


def _recording_property(name: str) -> property:
    """Return a property for a class of cursors. Its getter is a function in C, because each statement calls it."""

    def set_kind(connection: Any, kind: Any) -> None:
        setattr(connection, name, _recorded(kind))

    return property(attrgetter(name), set_kind)


class AsyncPsycopgConnection(psycopg.AsyncConnection[Any], AsyncTracker):
    """A connection that queries the position of a transaction in the same message as its commit.

    Attributes:
        has_own_threshold: the application has set ``prepare_threshold``.
    """

    read_only_error = psycopg.errors.ReadOnlySqlTransaction
    standby_error = psycopg.errors.CannotConnectNow
    has_run = False
    has_own_threshold = False

    # The statements of all cursors are recorded: their classes are subclasses of those that the application sets.
    if not TYPE_CHECKING:
        cursor_factory = _recording_property("_cursor_kind")
        server_cursor_factory = _recording_property("_server_cursor_kind")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        self.poll = poll.poll

    async def answer(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        begins = not self._autocommit and self.pgconn.transaction_status == _IDLE
        self._autocommit = self._autocommit or begins
        try:
            cursor = await psycopg.AsyncCursor(self, row_factory=tuple_row).execute(sql)
            return await cursor.fetchone()
        finally:
            self._autocommit = self._autocommit and not begins

    def before(self, query: Any) -> Statement:
        """Record that a statement runs. Refuse a statement that would let a slave's connection write (S7)."""
        self.has_run = True
        return super().before(query)

    def after(self, results: list[Any]) -> None:
        """Record whether a statement has committed or has changed the session, from its results."""
        for result in results:
            word = (result.command_status or b"").partition(b" ")[0].decode()
            if word in CHANGES:
                self.session_changed = True
            elif word == "COMMIT":
                self.note(Written.YES if self.is_in_transaction() else Written.ASK)

    def after_error(self, what: Statement) -> None:
        """Record what a statement that has failed may have committed before its error."""
        if not self.is_reader:
            self.note_error(what, is_idle=not self.is_in_transaction())

    def session_id(self) -> int:
        """Return the process id that was sent when the connection was opened."""
        return self.pgconn.backend_pid

    def forbid_prepared(self) -> None:
        """Switch psycopg's automatic prepared statements off, unless the application has set ``prepare_threshold``."""
        if not self.has_own_threshold:
            self.prepare_threshold = None

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, from the status in the server's latest answer."""
        return self.pgconn.transaction_status not in _OUTSIDE

    async def commit(self) -> None:
        """Commit. Query in the same message whether something was written, and at which position."""
        was = self.pgconn.transaction_status
        if not self.reports_positions or was != _IN_TRANSACTION or self._pipeline is not None:
            await super().commit()
            if was not in _OUTSIDE:
                self.ended(Written.ASK if was == _IN_TRANSACTION else Written.NO)
            return
        async with self.lock:
            self.pgconn.send_query(_COMMIT)
            answers = await self.wait(generators.execute(self.pgconn))
        for result in answers:
            if result.status == _FAILED:
                raise psycopg.errors.error_from_result(result)
        writes, _, place = answers
        is_write = writes.get_value(0, 0) == b"t"
        self.ended(self.position_at(place.get_value(0, 0).decode()) if is_write else Written.NO)

    async def rollback(self) -> None:
        """Roll back."""
        was = self.pgconn.transaction_status
        await super().rollback()
        if was not in _OUTSIDE:
            self.ended(Written.NO)

    async def set_read_only(self, value: bool | None) -> None:
        """Set whether transactions refuse writes. A slave's connection stays read-only (S7)."""
        await super().set_read_only(value or None if self.is_reader else value)

    async def tpc_begin(self, *_: object) -> None:
        """Refuse two-phase commits, whose position is not known."""
        raise psycopg.NotSupportedError(NO_TWO_PHASE)


class _LimitedConnection(AsyncPsycopgConnection):
    """A connection with a time-out for answers.

    Attributes:
        limit: seconds to wait for an answer.
    """

    limit: float = READ_TIMEOUT

    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait for an answer. Close the connection if it does not arrive in time, or the wait is cancelled."""
        if args or options:
            return await super().wait(gen, *args, **options)
        try:
            async with asyncio.timeout(self.limit):
                return await waiting.wait_async(gen, self.pgconn.socket, interval=0.1)
        except psycopg.Error:
            raise
        except TimeoutError as error:
            self.timed_out = True
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer came within {self.limit:g} s") from error
        except BaseException:
            try:
                with suppress(psycopg.Error):  # otherwise the server would continue to work on the statement
                    await self.cancel_safe(timeout=2)
            finally:
                self.pgconn.finish()
            raise


class AsyncPsycopgDriver(AsyncPostgreSQLDriver):
    """The `replswitch.drivers.Driver` for psycopg 3 with asyncio."""

    timeout_setting = "connect_timeout"
    session_setting = "options"

    def with_read_only(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with a read time-out, and with ``options`` of libpq that make sessions read-only."""
        options = f"{settings.get('options') or ''} -c default_transaction_read_only=on".strip()
        return {"read_timeout": READ_TIMEOUT, **settings, "options": options}

    async def connect(self, *args: Any, read_only: bool, **settings: Any) -> AsyncPsycopgConnection:
        """Open a connection. ``read_timeout``, a setting of replswitch itself, is the time-out for answers."""
        limit = settings.pop("read_timeout", None)
        kind = AsyncPsycopgConnection if limit is None else _LimitedConnection
        raw = await kind.connect(*args, **settings)
        raw.has_own_threshold = "prepare_threshold" in settings
        if isinstance(raw, _LimitedConnection):
            raw.limit = limit
        return raw

    def abort(self, raw: AsyncPsycopgConnection) -> None:
        """Close the connection at once."""
        raw.pgconn.finish()

    def is_rolled_back(self, raw: Raw) -> bool:
        """Return whether no transaction is open, so that psycopg's ``rollback()`` would send nothing."""
        tracker = raw.driver_connection
        return isinstance(tracker, AsyncPsycopgConnection) and tracker.pgconn.transaction_status == _IDLE

    def returned_rows(self, raw: Any) -> bool:
        """Return whether SQLAlchemy's cursor has rows. psycopg's ``description`` would describe all columns."""
        result = raw._cursor.pgresult
        return result is not None and result.nfields > 0

    def is_lost(self, tracker: AsyncPsycopgConnection) -> bool:
        """Return whether the connection is closed. Data in the socket shows this, as idle servers send none."""
        return tracker.pgconn.status == _BROKEN or bool(tracker.poll(0))

    def ping_again(self, error: BaseException) -> int | None:
        """Derive libpq's answer to a ping from the text of the error, because a ping would block the event loop."""
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return NO_RESPONSE
        return OK if _ANSWERED.search(str(error)) else NO_RESPONSE
