"""The possible states of a write, and the base class of objects that track the writes of a connection."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from weakref import ReferenceType

    from replswitch.positions import Position
    from replswitch.scope import Scope


class Written(Enum):
    """What is known about writes on the master, if no position is known."""

    NO = "nothing was written"
    YES = "something was or may have been written, and its position cannot be determined"
    ASK = "something may have been written, and the server can be asked (`WriteTracker.ask`)"


def later(first: Position | Written, second: Position | Written) -> Position | Written:
    """Combine two writes of one session, ``first`` and ``second``. Known positions are merged."""
    if first is Written.NO:
        return second
    if second is Written.NO:
        return first
    if Written.YES in (first, second):
        return Written.YES
    if isinstance(first, Written) or isinstance(second, Written):
        return Written.ASK
    return first.merge(second)


class WriteTracker:
    """Records what was committed through one connection (M1, P1). Each connection has its own tracker.

    Some drivers show with each result what was committed, such as PyMySQL and sqlite3. With others, such as
    mysqlclient, the server must be queried. This base class is for unknown drivers, so it always assumes a write.

    Attributes:
        news: False if nothing can have changed since the last `pop_write_status`, and no transaction has begun or
            ended since then. It is a plain attribute, because it is read after every statement.
        unread: a result may be unread; `replswitch.drivers.Driver.drain_results` reads it.
        owes_results: a result still has unread rows, or another result follows, so the statement may still write.
        streams: a result is being read row by row, so no other statement can run on the connection (S6). Then
            ``unread`` is True as well.
        session_changed: True on a slave's connection if a statement changed its session (variables, the current
            database), so that a write must not move away from it (S8).
        identity: the identity of the server, as the server reports it; None before it is known.
        last_known_position: the position of the latest write, as far as it is known.
        learns_after_rows: once the rows of a result were read, more may be known about a pending write.
        has_rows: the statement whose status `pop_write_status` returned last has returned rows, which writes seldom do;
            False if this is not known.
        includes_others: the position that `ask` returns may be of another session's write, because the server does not
            keep a position for each session.
        on_write: a function, set by a binding that does not see every statement. It is called when something may have
            been committed. Its arguments are the tracker, and True if a statement is running, so that the server cannot
            be queried now.
        reports_all: `pop_write_status` reports every commit, even one that SQLAlchemy does not see.
        pending_in: the scope that must query the position of the pending write; None before the first such write.
    """

    news = True
    unread = False
    owes_results = False
    streams: Any = False
    session_changed = False
    identity: Hashable | None = None
    last_known_position: Position | None = None
    learns_after_rows = False
    has_rows = False
    includes_others = False
    reports_all = False
    on_write: Callable[[WriteTracker, bool], object] | None = None
    pending_in: ReferenceType[Scope] | None = None

    def follow(self) -> None:
        """Update the state of the session. It is called after each statement that has succeeded."""

    def may_have_news(self) -> bool:
        """Return False if `pop_write_status` would certainly return `Written.NO`."""
        return True

    def may_commit(self) -> bool:
        """Return whether a statement without an answer may commit in a transaction, as a procedure on MySQL does."""
        return False

    def has_written(self) -> bool:
        """Return whether something was or may have been committed that `pop_write_status` has not reported so far.

        It is called before the connection is closed. By default False, for drivers that report each commit at once.
        """
        return False

    def pop_write_status(self) -> Position | Written:
        """Return what was committed since the last call, without a round trip."""
        return Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Ask the server what was written, in one round trip, after `pop_write_status` has returned `Written.ASK`.

        Args:
            since: `last_known_position` before the statements in question. A later position comes from them, or
                from statements of other scopes that share the connection.

        Returns:
            the position of the latest write; `Written.NO` if there is none; `Written.YES` if it has no position.

        Raises:
            Exception: the driver's own error.
            PositionError: the answer is not a position.
        """
        return Written.YES

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Drop the status that `pop_write_status` has just returned, so that no scope records it.

        Args:
            with_rows: assume a write even if the statement has returned rows. Otherwise, a driver may treat such a
                statement as a read.
        """

    def refresh_baseline(self) -> None:
        """Update `last_known_position` after writes that no scope has recorded. It takes at most one round trip."""


#: The tracker for unknown drivers. It has no state, so all connections share it.
UNKNOWN = WriteTracker()
