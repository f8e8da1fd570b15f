"""What one connection to a master knows of its own writes."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.positions import Position


class Written(Enum):
    """What is known of a write on the master whose position is not."""

    NO = "nothing was written"
    YES = "something was or may have been written, and its position cannot be had"
    ASK = "something may have been written, and the server can be asked (`WriteTracker.ask`)"


def later(first: Position | Written, second: Position | Written) -> Position | Written:
    """Return what is known of two writes of one session: the position of both, if that is known."""
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
    """Tells what was committed through one connection (M1, P1). One object per connection.

    Three kinds exist. Some drivers tell with the server's answer (PyMySQL, sqlite3), with others the server must be
    asked (mysqlclient), and with the rest nothing is known, which is what this base class says.

    Attributes:
        news: False where nothing can have changed since `pop_write_status` was last called, and no transaction has
            begun or ended. Costs nothing to read, so it is looked at after every statement.
        unread: a result may be unread, which `replswitch.drivers.Driver.drain_results` reads.
        session_changed: True on a slave's connection if a statement changed its session (variables, the current
            database), so that a write must not move away from it (S8).
        identity: which server the connection leads to, as the server itself says; None before that is known.
        last_known_position: the position of the latest write, as far as it is known.
        learns_after_rows: whether the end of a result may tell more about writes that are pending already.
    """

    news = True
    unread = False
    session_changed = False
    identity: Hashable | None = None
    last_known_position: Position | None = None
    learns_after_rows = False

    def follow(self) -> None:
        """Follow what the latest statement did to the session. Called after each one that succeeded."""

    def pop_write_status(self) -> Position | Written:
        """Return what was committed since the last call, without a round trip."""
        return Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Ask the server what was written. One round trip, after `pop_write_status` returned `Written.ASK`.

        Args:
            since: `last_known_position` before the statements in question. What is later was written by them, or by
                others beside them where scopes share a connection.

        Raises:
            Exception: the driver's own error.
            PositionError: the answer is no position.
        """
        return Written.YES

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Make what `pop_write_status` has just returned count for no scope.

        Args:
            with_rows: statements that returned rows may have written as well.
        """

    def refresh_baseline(self) -> None:
        """Update `last_known_position` after writes that counted for no scope. At most one round trip."""


#: For drivers of which nothing is known. It has no state, so all connections share it.
UNKNOWN = WriteTracker()
