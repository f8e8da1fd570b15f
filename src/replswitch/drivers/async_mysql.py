"""The common part of aiomysql and asyncmy, on MariaDB and MySQL. SQLAlchemy opens their connections.

The answer to a commit contains its position (session tracking), so no query is needed. The drivers keep only a part of
the answers. So after a statement in autocommit mode that returns rows, the server is queried, in the same task.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from replswitch.drivers.driver import WriteTracker, Written, later
from replswitch.drivers.mysql import MySQLFamilyDriver, has_positions, is_mariadb, last_written, rows
from replswitch.drivers.session_track import SESSION_CHANGED, session_track, tracking
from replswitch.drivers.unknown import UnknownDriver
from replswitch.errors import PositionError
from replswitch.positions import MariaDBPosition, MySQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.drivers import Raw
    from replswitch.positions import Position

_MYSQL: Final = MySQLFamilyDriver()

# The capability CLIENT_SESSION_TRACK, and two flags of the session's status:
# https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html
_SESSION_TRACK: Final = 1 << 23
_IN_TRANSACTION: Final = 0x1
_AUTOCOMMIT: Final = 0x2


class _Tracker(WriteTracker):
    """The write tracker of one connection. For the queries in `replswitch.drivers.mysql`, it is the connection.

    Args:
        raw: the connection, as SQLAlchemy adapts it.

    Attributes:
        has_run: a command was sent, and its answer was not passed to `record_answer`.
        reports_positions: whether each write gets a position; None before the server was queried.
        written: the commits since the last `pop_write_status`.
    """

    plain_cursor = None
    group = ""
    changes = 0
    has_run = False
    reports_positions: bool | None = None
    written: Position | Written = Written.NO

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        # Whether there may be writes after `last_known_position` that no scope has recorded.
        self._baseline_is_stale = False

    def cursor(self, _: object = None) -> Any:
        """Return a cursor, which waits for the server without stopping the event loop."""
        return self._raw.cursor()

    def get_server_info(self) -> str:
        """Return the version that the server has sent in its greeting."""
        return str(self._raw.driver_connection.get_server_info())

    @property
    def _status(self) -> int:
        """The flags in the latest answer that the driver has kept."""
        return int(self._raw.driver_connection.server_status or 0)

    def track(self) -> None:
        """Make the server report the position of each commit in its answer. This takes two round trips."""
        self.reports_positions = has_positions(self)
        if self.reports_positions:
            rows(self, tracking(is_mariadb=is_mariadb(self)))
            self.reports_all = bool(self._status & SESSION_CHANGED)  # the answer to this statement shows it
        self.written, self.has_run = Written.NO, False

    def record_answer(self, status: int | None, rest: bytes | None) -> None:
        """Keep the session state in an answer.

        Args:
            status: its flags; None if the driver has not kept them.
            rest: the bytes after them; None if the driver has not kept them.
        """
        self.has_run = False
        written: Position | Written = Written.NO
        if not status:
            written = Written.ASK if self._status & _AUTOCOMMIT else Written.NO
        elif status & SESSION_CHANGED:
            written = Written.ASK if not rest else self._read(rest)
        self.written = later(self.written, written)

    def _read(self, rest: bytes) -> Position | Written:
        try:
            gtid, _, _ = session_track(rest)
            if not gtid:
                return Written.NO
            self.last_known_position = MariaDBPosition.parse(gtid) if is_mariadb(self) else MySQLPosition.parse(gtid)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
            return Written.YES
        return self.last_known_position

    def record_unknown_answer(self) -> None:
        """Record that an answer is an error, or was not kept. A procedure may have written before its error."""
        if not self._status & _IN_TRANSACTION:
            self.written = later(self.written, Written.ASK)

    def pop_write_status(self) -> Position | Written:
        """Return what was committed; ASK if the answer is not known."""
        if self.reports_all:
            written, self.written = self.written, Written.NO
            has_run, self.has_run = self.has_run, False
            return later(written, Written.ASK) if has_run and self._status & _AUTOCOMMIT else written
        return Written.ASK if self.reports_positions is not False else Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Ask for the position of the latest write."""
        if self.reports_positions is None:
            self.reports_positions = has_positions(self)
        if not self.reports_positions:
            return Written.YES
        status = last_written(self, since)
        self.written, self.has_run = Written.NO, False  # the answer includes them
        return status

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Record that the position must be queried before the next statement that counts."""
        self._baseline_is_stale = True

    def refresh_baseline(self) -> None:
        """Ask for the position of the latest write, if there may have been one that counted for no scope."""
        if self._baseline_is_stale:
            self._baseline_is_stale = False
            with suppress(Exception):  # the next statement fails likewise
                self.ask(None)


class Tracked:
    """The part of a driver's connection that passes the answers of the server to the write tracker.

    A subclass adds the method that reads the answer to a commit, ``_read_ok_packet``.

    Attributes:
        replswitch: the tracker.
    """

    replswitch: _Tracker

    async def _execute_command(self, *args: Any) -> None:
        """Send a command."""
        self.replswitch.has_run = True
        await super()._execute_command(*args)  # type: ignore[misc]  # of the driver's class

    async def _read_result(self, *, unbuffered: bool) -> None:
        await super()._read_query_result(unbuffered=unbuffered)  # type: ignore[misc]  # likewise

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        """Read the answer to a statement."""
        try:
            await self._read_result(unbuffered=unbuffered)
        except Exception:
            self.replswitch.record_unknown_answer()
            raise
        result: Any = self._result  # type: ignore[attr-defined]  # likewise
        self.replswitch.record_answer(result.server_status, result.message)


class AsyncMySQLDriver(UnknownDriver):
    """See `replswitch.drivers.Driver`.

    Attributes:
        tracked: the driver's `Tracked`.
    """

    tracked: ClassVar[type[Tracked]]

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the settings, with the flag that makes the server report changes of the session."""
        return {**settings, "client_flag": int(settings.get("client_flag") or 0) | _SESSION_TRACK}

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Make the connection to a slave read-only, and make the master report positions."""
        super().adopt(raw, read_only=read_only, begin=begin)
        if not read_only:
            connection: Any = raw.driver_connection
            part: Any = self.tracked
            kind: Any = type(connection)
            connection.replswitch = tracker = _Tracker(raw)
            connection.__class__ = _tracked(part, kind)
            tracker.track()

    def writes_of(self, raw: Raw) -> _Tracker:
        """Return the tracker, which the driver's own connection keeps."""
        kept = vars(raw.driver_connection)
        tracker: _Tracker = kept.get("replswitch") or kept.setdefault("replswitch", _Tracker(raw))
        return tracker

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server."""
        return _MYSQL.fetch_position(self.writes_of(raw))

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait with the function of the server."""
        return _MYSQL.wait_for(self.writes_of(raw), position, seconds)

    def has_common_positions(self, raw: Raw) -> bool:
        """Return False for a node of Galera: the positions of its nodes are independent."""
        return _MYSQL.has_common_positions(self.writes_of(raw))


@cache
def _tracked(part: Any, kind: Any) -> Any:
    """Return a class of connections like ``kind`` that passes its answers to the write tracker."""
    return type(kind.__name__, (part, kind), {"__module__": __name__})
