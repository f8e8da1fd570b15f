"""A connection of psycopg2 that asks for the position of a write.

The position of a transaction comes in the same round trip as its commit. The position of a statement outside
transactions is queried once, later, before the scope next reads from a slave, or before the response is sent.
"""

from __future__ import annotations

import os
import re
import select
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS as IN_TRANSACTION

from replswitch.drivers.postgresql import NO_TWO_PHASE, NOT_READ_ONLY
from replswitch.drivers.postgresql_position import POSITION, WRITTEN
from replswitch.drivers.postgresql_statement import CHANGES
from replswitch.drivers.postgresql_tracker import PostgreSQLTracker
from replswitch.drivers.psycopg2_cursor import TrackingCursor, tracking
from replswitch.drivers.written import Written, later

if TYPE_CHECKING:
    from replswitch.drivers.postgresql_position import Timelines
    from replswitch.drivers.postgresql_statement import Statement
    from replswitch.positions import Position

# Queries the position, and an id above those of all transactions that have ended. The position alone is not enough, as
# the server also writes to its log by itself, and when a query reads rows that were just written.
_WRITTEN: Final = f"{WRITTEN}, pg_snapshot_xmax(pg_current_snapshot())::text"

# psycopg2 shows the last result only, so the answer from before the commit is kept in a setting of the session.
_COMMIT: Final = (
    "SELECT set_config('replswitch.wrote', (pg_current_xact_id_if_assigned() IS NOT NULL)::text, false); COMMIT;"
    f" {_WRITTEN}, current_setting('replswitch.wrote')"
)

# Command tags of statements that return rows or have changed no row. Such statements write only through a function, a
# trigger or WITH … INSERT.
_SELDOM_WRITES: Final = re.compile(r"SELECT|SHOW|FETCH|EXPLAIN|(?:UPDATE|DELETE|MERGE|INSERT 0) 0\Z")


# Errors of the server that replswitch raises itself. psycopg2 sets ``pgcode`` only in errors that the server has sent.
class _ReadOnlyError(psycopg2.errors.ReadOnlySqlTransaction):
    pgcode = "25006"


class _StandbyError(psycopg2.errors.CannotConnectNow):
    pgcode = "57P03"


class Psycopg2Connection(psycopg2.extensions.connection, PostgreSQLTracker):
    """A connection that records what was committed through it.

    psycopg2's own autocommit mode is always on, because psycopg2's ``commit()`` cannot query the position in the same
    message. So the connection sends BEGIN itself, before the same statements as psycopg2 would.

    Attributes:
        begins: the next statement begins a transaction; the opposite of ``autocommit``.
        may_have_written: a statement outside transactions may have written since the last `pop_write_status`.
        only_rows: all statements outside transactions since the last `ask` have returned rows or changed none.
        baseline_is_stale: there may be writes after `last_known_position` that no scope has recorded.
        last_id: the id in the latest answer to `_WRITTEN`.
        quiet_since: the position in the first answer with ``last_id``. No transaction that wrote has ended since then.
    """

    read_only_error = _ReadOnlyError
    standby_error = _StandbyError
    begins = False
    may_have_written = False
    only_rows = True
    baseline_is_stale = False
    last_id = ""
    quiet_since: Position
    seen = IDLE
    includes_others = True

    def prepare(self, timelines: Timelines, *, read_only: bool) -> None:
        """Prepare a connection that was just opened. Store a master's answer in ``timelines``.

        Raises:
            psycopg2.Error: the connection was lost; it is for the master, but the server is a standby; or it is for a
                slave, but would not refuse writes.
        """
        self.process = os.getpid()
        self.is_reader = read_only
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        self.ready = poll.poll
        self.set_autocommit(True)
        if not read_only:
            row = self.question(POSITION)
            self.recognise(row, timelines)
            if self.reports_positions:
                self.last_known_position = self.written_at(row[3], row[11])
        elif self.info.parameter_status("default_transaction_read_only") == "off":
            # A pooler has not passed the setting on. A standby refuses writes even without it.
            (is_standby,) = self.question("SELECT pg_is_in_recovery()")
            if not is_standby:
                raise psycopg2.OperationalError(NOT_READ_ONLY)

    def question(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        with closing(psycopg2.extensions.cursor(self)) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def cursor(self, name: Any = None, cursor_factory: Any = None, *args: Any, **options: Any) -> Any:
        """Return a cursor that records what its statements have written."""
        default: Any = self.cursor_factory
        factory = tracking(cursor_factory or default or TrackingCursor)
        return super().cursor(name, factory, *args, **options)

    def close(self) -> None:
        """Close the connection. Do nothing in a forked child, which must not end its parent's session (S12)."""
        if self.process == os.getpid():
            super().close()

    # Transactions

    def set_autocommit(self, value: bool) -> None:
        """Set psycopg2's own autocommit mode."""
        own: Any = psycopg2.extensions.connection.autocommit
        own.__set__(self, value)

    @property
    def autocommit(self) -> bool:
        """Whether each statement is committed at once."""
        return not self.begins

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        if self.info.transaction_status != IDLE:
            raise psycopg2.ProgrammingError("autocommit cannot be set inside a transaction")
        self.begins = not value

    def set_isolation_level(self, level: int | None) -> None:
        """Set the isolation level of the transactions, or autocommit mode."""
        self.rollback()
        self.begins = level != psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT
        if self.begins:
            self.isolation_level = level

    def set_session(
        self,
        isolation_level: Any = None,
        readonly: Any = None,
        deferrable: Any = None,
        autocommit: bool | None = None,
    ) -> None:
        """Set the characteristics of the transactions. A slave's connection stays read-only (S7)."""
        if self.is_reader and readonly is not None and not readonly:
            readonly = "DEFAULT"
        super().set_session(isolation_level, readonly, deferrable)
        if autocommit is not None:
            self.autocommit = autocommit

    @property
    def readonly(self) -> Any:
        """Whether the transactions refuse writes; None for the server's default."""
        own: Any = psycopg2.extensions.connection.readonly
        return own.__get__(self)

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self.set_session(readonly="DEFAULT" if value is None else value)

    def commit(self) -> None:
        """Commit. Query in the same message whether something was written, and at which position."""
        status = self.info.transaction_status
        if status == IN_TRANSACTION and self.reports_positions:
            lsn, last_id, wrote = self.question(_COMMIT)
            position = self.written_at(lsn, last_id)
            self.ended(position if wrote == "true" else Written.NO)
        elif status != IDLE or self.closed:
            self.end("COMMIT", Written.YES if status == IN_TRANSACTION else Written.NO)

    def rollback(self) -> None:
        """Roll back."""
        if self.info.transaction_status != IDLE or self.closed:
            self.end("ROLLBACK", Written.NO)

    def __enter__(self) -> Self:
        """Begin a transaction."""
        self.send("BEGIN")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Commit the transaction, or roll it back after an exception."""
        (self.commit if kind is None else self.rollback)()

    def tpc_begin(self, *_: object) -> None:
        """Refuse two-phase commits, whose position is not known."""
        raise psycopg2.NotSupportedError(NO_TWO_PHASE)

    def send(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        with closing(psycopg2.extensions.cursor(self)) as cursor:
            cursor.execute(sql)

    def end(self, sql: str, status: Written) -> None:
        """End the transaction with a statement."""
        self.send(sql)
        self.ended(status)

    def ended(self, status: Position | Written) -> None:
        """Record the end of a transaction, and what it has committed."""
        self.seen, self.news = IDLE, True
        if not self.is_reader:
            self.note(status)

    # Statements

    def before(self, query: Any) -> Statement:
        """Refuse a statement that would let a slave's connection write (S7). Send BEGIN if `begins` requires it."""
        what = super().before(query)
        if self.begins and self.info.transaction_status == IDLE:
            self.send("BEGIN")
        return what

    def after(self, answer: str | None, *, has_commit: bool = False) -> None:
        """Record whether a statement may have written, or has changed the session.

        Args:
            answer: the command tag; of several statements, that of the last one.
            has_commit: there are several statements, and one of them may be a COMMIT.
        """
        now, (kind, *_) = self.info.transaction_status, (answer or "").split(" ")
        if now != self.seen:
            self.seen, self.news = now, True
        if kind in CHANGES:
            self.session_changed = True
        if self.is_reader:
            return
        if now != IDLE:
            if has_commit or kind == "COMMIT":  # the same statements have begun another transaction
                self.note(Written.YES)
        else:
            self.has_rows = _SELDOM_WRITES.match(answer or "") is not None
            self.only_rows = self.only_rows and self.has_rows
            self.may_have_written = self.news = True
            if self.on_write is not None:
                self.on_write(self, False)

    def after_error(self, what: Statement) -> None:
        """Record what a statement that has failed may have committed before its error."""
        now = self.info.transaction_status
        if now != self.seen:
            self.seen, self.news = now, True
        if not self.is_reader:
            self.note_error(what, is_idle=now == IDLE)

    # WriteTracker

    def pop_write_status(self) -> Position | Written:
        """Return what was committed; `Written.ASK` after statements outside transactions, which may call functions."""
        status = super().pop_write_status()
        may_have_written, self.may_have_written = self.may_have_written, False
        self.has_rows = self.has_rows and may_have_written and status is Written.NO
        return later(
            status, Written.NO if not may_have_written else Written.ASK if self.reports_positions else Written.YES
        )

    def ask(self, since: Position | None) -> Position | Written:
        """Return the master's position; `Written.NO` if only rows were read and nothing committed since ``since``."""
        if not self.reports_positions:
            return Written.YES
        only_rows, self.only_rows = self.only_rows, True
        latest = self.last_known_position = self.written_at(*self.question(_WRITTEN))
        is_quiet = only_rows and since is not None and since.includes(self.quiet_since)
        return Written.NO if is_quiet else latest

    def latest_position(self) -> Position | Written:
        """Query the master's current position."""
        return self.written_at(*self.question(_WRITTEN)) if self.reports_positions else Written.YES

    def written_at(self, lsn: str, last_id: str) -> Position:
        """Return the position in an answer to `_WRITTEN`. With a new ``last_id``, also set `quiet_since` to it."""
        position = self.position_at(lsn)
        if last_id != self.last_id:
            self.last_id, self.quiet_since = last_id, position
        return position

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Discard the status, so that no scope records the write. `refresh_baseline` then queries a newer position."""
        # A statement that returned rows has seldom written, so it is dropped without a query, unless ``with_rows``.
        self.baseline_is_stale = self.baseline_is_stale or with_rows or not self.has_rows

    def refresh_baseline(self) -> None:
        """Query the position that later writes are compared with, if there may be a write that no scope recorded."""
        if self.baseline_is_stale and self.reports_positions:
            self.baseline_is_stale = False
            with suppress(psycopg2.OperationalError, psycopg2.InterfaceError):  # the next statement fails likewise
                self.ask(None)
