"""The write tracker that is the base class of the connections of all drivers for PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from replswitch.drivers.driver import MUST_STAY_READ_ONLY
from replswitch.drivers.postgresql_statement import LONGEST, kept, statement
from replswitch.drivers.written import WriteTracker, Written, later
from replswitch.positions import PostgreSQLPosition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replswitch.drivers.postgresql_position import Timelines
    from replswitch.drivers.postgresql_statement import Statement
    from replswitch.positions import Position

_NO: Final = Written.NO  # because looking up a member of an Enum takes longer


class PostgreSQLTracker(WriteTracker):
    """The write tracker of a connection to PostgreSQL.

    Attributes:
        read_only_error: the module's error of a server that refuses a write (SQLSTATE 25006).
        standby_error: the module's error of a server that accepts no connections now (57P03).
        is_reader: the database refuses writes (S7).
        timed_out: no answer came in time, and the connection was closed.
        reports_positions: the server has positions.
        may_list_files: the account may list the WAL files.
        written: the commits since the last `pop_write_status`.
        timeline: the timeline of the master, which stays the same while the connection is open.
        sizes: the sizes of a WAL page and of a WAL segment, in bytes.
    """

    read_only_error: ClassVar[type[Exception]]
    standby_error: ClassVar[type[Exception]]
    is_reader = False
    timed_out = False
    reports_positions = False
    may_list_files = True
    written: Position | Written = Written.NO
    timeline = 0
    info: Any
    sizes = (0, 0)

    @property
    def server_name(self) -> str:
        """The address of the server."""
        return f"{self.info.host}:{self.info.port}"

    def reported(self, name: str) -> str | None:
        """Return a setting that the server has reported; None if it does not report it."""
        value: str | None = self.info.parameter_status(name)
        return value

    def recognise(self, row: Sequence[Any], timelines: Timelines) -> None:
        """Store the identity of the master, from its answer to `replswitch.drivers.postgresql_position.POSITION`.

        Args:
            row: the answer.
            timelines: the known timelines of the database's servers; the answer is added to them.

        Raises:
            Exception: ``standby_error``, because the server is a standby. This happens if, after a promotion, the host
                name of the master still leads to the former master.
        """
        if row[2]:
            raise self.standby_error("The server is a standby, so it cannot serve as the master.")
        self.identity, position = timelines.position_of(row)
        self.timeline, self.sizes = row[4], (row[5], row[6])
        self.reports_positions = position is not None

    def position_at(self, lsn: str) -> Position:
        """Return the position in an answer to `replswitch.drivers.postgresql_position.WRITTEN`."""
        page, segment = self.sizes
        return PostgreSQLPosition.after_insert(self.timeline, lsn, page=page, segment=segment)

    def before(self, query: Any) -> Statement:
        """Return the facts in a statement's text. Refuse a statement that would let a slave's connection write (S7)."""
        if query.__class__ is str and len(query) <= LONGEST:
            what = kept(query)
        elif isinstance(query, str):
            what = statement(query)
        elif isinstance(query, bytes):
            what = statement(query.decode("latin-1"))
        elif hasattr(query, "as_string"):
            what = statement(query.as_string(self))
        else:  # a template string
            what = statement("".join(getattr(query, "strings", ())))
        if what.has_side_effect:
            if self.is_reader and what.lets_write:
                raise self.read_only_error(MUST_STAY_READ_ONLY)
            if what.leaves_trace or (what.is_temporary and not self.is_reader):
                self.session_changed = True
        return what

    def note(self, status: Position | Written) -> None:
        """Record what was committed, and call `on_write`."""
        if status is _NO:
            return
        if not self.reports_positions:
            status = Written.YES
        written = self.written
        self.written = status if written is _NO else later(written, status)
        self.news = True
        if not isinstance(status, Written):
            self.last_known_position = status
        if self.on_write is not None:
            self.on_write(self, False)

    def note_error(self, what: Statement, *, is_idle: bool) -> None:
        """Record what a statement that has failed may have committed before its error.

        Args:
            what: the facts that its text shows.
            is_idle: no transaction is open after the error.
        """
        if is_idle and (what.commits or what.has_commit):
            self.note(Written.ASK)
        elif what.has_commit:  # the transaction that is open has begun after the commit
            self.note(Written.YES)

    def note_cancellation(self, what: Statement) -> None:
        """Record that a statement may have committed. It was interrupted before its answer was read."""
        if not self.is_reader and (what.has_commit or not (what.changes_rows or what.only_reads or what.is_plain)):
            self.note(Written.YES)

    # WriteTracker

    def pop_write_status(self) -> Position | Written:
        """Return what was committed."""
        self.news = False
        written, self.written = self.written, _NO
        return written
