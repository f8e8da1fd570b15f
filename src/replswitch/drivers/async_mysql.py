"""aiomysql and asyncmy, on MariaDB and MySQL. SQLAlchemy opens their connections.

They do not show the session state that the server sends with each result. So after each commit, the server is asked for
the position of the latest write, in the same task. A statement in autocommit mode is not followed by a question: it
counts as a write whose position is unknown (P3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers.driver import WriteTracker, Written
from replswitch.drivers.mysql import MySQLFamilyDriver, has_positions, last_written
from replswitch.drivers.unknown import UnknownDriver
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers import Raw
    from replswitch.positions import Position

_MYSQL: Final = MySQLFamilyDriver()


class _Tracker(WriteTracker):
    """The write tracker of one connection. For the queries in `replswitch.drivers.mysql`, it is the connection.

    Args:
        raw: the connection, as SQLAlchemy adapts it.

    Attributes:
        has_committed: a transaction was committed, and the server was not asked since.
        reports_positions: whether each write gets a position; None before the server was asked.
    """

    plain_cursor = None
    group = ""
    changes = 0

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._is_moved = False  # there may be writes later than `last_known_position` that counted for no scope
        self.has_committed = False
        self.reports_positions: bool | None = None

    def cursor(self, _: object = None) -> Any:
        """Return a cursor, which waits for the server without stopping the event loop."""
        return self._raw.cursor()

    def get_server_info(self) -> str:
        """Return the version that the server has sent in its greeting."""
        return str(self._raw.driver_connection.get_server_info())

    def pop_write_status(self) -> Position | Written:
        """Return ASK after a commit. After a statement in autocommit mode, return YES."""
        has_committed, self.has_committed = self.has_committed, False
        if not has_committed:
            fall_back_to_clock("A statement in autocommit mode has no position with an asyncio driver")
        return Written.ASK if has_committed and self.reports_positions is not False else Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Ask for the position of the latest write."""
        if self.reports_positions is None:
            self.reports_positions = has_positions(self)
        return last_written(self, since) if self.reports_positions else Written.YES

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Record that the position must be queried before the next statement that counts."""
        self._is_moved = True

    def refresh_baseline(self) -> None:
        """Ask for the position of the latest write, if there may have been one that counted for no scope."""
        if self._is_moved:
            self._is_moved = False
            self.ask(None)


class AsyncMySQLDriver(UnknownDriver):
    """See `replswitch.drivers.Driver`."""

    def writes_of(self, raw: Raw) -> _Tracker:
        """Return the tracker, which the driver's own connection keeps."""
        kept = vars(raw.driver_connection)
        tracker: _Tracker = kept.get("replswitch") or kept.setdefault("replswitch", _Tracker(raw))
        return tracker

    def after_commit(self, raw: Raw) -> WriteTracker:
        """Return the tracker, which now may ask."""
        tracker = self.writes_of(raw)
        tracker.has_committed = True
        return tracker

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server."""
        return _MYSQL.fetch_position(self.writes_of(raw))

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait on the server, with its own function."""
        return _MYSQL.wait_for(self.writes_of(raw), position, seconds)

    def has_common_positions(self, raw: Raw) -> bool:
        """Return False for a node of Galera: the positions of its nodes are independent."""
        return _MYSQL.has_common_positions(self.writes_of(raw))
