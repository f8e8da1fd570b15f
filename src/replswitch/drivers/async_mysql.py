"""The common part of the drivers aiomysql and asyncmy, for MariaDB and MySQL. SQLAlchemy opens their connections.

The answer to a commit contains its position (session tracking), so no query is needed. The drivers keep only a part of
the answers. So after a statement in autocommit mode that returns rows, the server is queried, in the same task.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from replswitch.drivers.async_mysql_tracker import IN_TRANSACTION, SESSION_TRACK, Reader, Tracker
from replswitch.drivers.mysql import MySQLFamilyDriver
from replswitch.drivers.one_host import at_address
from replswitch.drivers.read_only import STAY_READ_ONLY
from replswitch.drivers.session_track import SESSION_CHANGED
from replswitch.drivers.unknown import UnknownDriver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from replswitch.drivers import Raw
    from replswitch.positions import Position

_MYSQL: Final = MySQLFamilyDriver()

# The commands that run a statement, prepare one, and run a prepared one, once or in bulk. Only asyncmy prepares.
# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase.html
_QUERY: Final = 3
_PREPARE: Final = 22
_EXECUTE: Final = (23, 250)

# The statements with which the drivers themselves end a transaction.
_ENDS: Final = frozenset({"COMMIT", "ROLLBACK"})


class Tracked:
    """The part of a driver's connection that passes the answers of the server to the write tracker.

    A subclass adds the method that reads the answer to a commit, ``_read_ok_packet``.

    Attributes:
        replswitch: the tracker.
    """

    replswitch: Tracker

    if TYPE_CHECKING:  # the two methods that are extended here; to find them with super() would take longer
        _send: Callable[[int, Any], Awaitable[None]]
        _read_answer: Callable[..., Awaitable[None]]

    def _execute_command(self, command: int, sql: Any) -> Any:
        """Send a command, and return an awaitable."""
        tracker = self.replswitch
        tracker.has_run, tracker.has_ended = True, False
        if command == _QUERY:
            tracker.latest, tracker.has_ended = sql, sql.__class__ is str and sql in _ENDS
        return self._send(command, sql)

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        """Read the answer to a statement."""
        tracker = self.replswitch
        try:
            await self._read_answer(unbuffered=unbuffered)
        except Exception:
            tracker.record_unknown_answer()
            raise
        except BaseException:  # the task was cancelled
            tracker.record_cancellation()
            raise
        result: Any = self._result  # type: ignore[attr-defined]  # of the driver's class
        if result.field_count and (status := result.server_status) and not status & SESSION_CHANGED:
            tracker.has_run = False  # as after most reads
        else:
            wrote = bool(result.affected_rows and not result.field_count)
            tracker.record_answer(result.server_status, result.message, wrote=wrote)


class _ReadOnly:
    """A mixin for the connections to slaves, which keeps their sessions read-only (S7)."""

    if TYPE_CHECKING:
        replswitch: Reader
        _send: Callable[[int, Any], Awaitable[None]]
        _read_ok_packet: Callable[[], Awaitable[Any]]

    def _execute_command(self, command: int, sql: Any) -> Any:
        """Send a command, and return an awaitable. If the read-only mode may have ended, first set it again."""
        tracker = self.replswitch
        tracker.has_run, tracker.has_ended = True, False
        if command == _QUERY:
            if sql.__class__ is str and sql in _ENDS:
                may_be_writable, tracker.may_be_writable = tracker.may_be_writable, False
                tracker.has_ended, tracker.latest = True, sql
            else:
                may_be_writable = tracker.before(sql)
        elif command == _PREPARE:
            may_be_writable = tracker.before_prepared(sql)
        else:
            may_be_writable = command in _EXECUTE and tracker.before_prepared()
        return self._send_read_only(command, sql) if may_be_writable else self._send(command, sql)

    async def _send_read_only(self, command: int, sql: Any) -> None:
        await self._send(_QUERY, STAY_READ_ONLY)
        await self._read_ok_packet()
        await self._send(command, sql)


class AsyncMySQLDriver(UnknownDriver):
    """The base class of the drivers for aiomysql and asyncmy.

    Attributes:
        tracked: the subclass of `Tracked` for the driver's connections.
    """

    tracked: ClassVar[type[Tracked]]
    connects_to_host = True

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the settings, with the flag that makes the server report changes of the session."""
        return {**at_address(dict(settings)), "client_flag": int(settings.get("client_flag") or 0) | SESSION_TRACK}

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Make the session on a slave read-only. Make the master report the positions of commits."""
        connection: Any = raw.driver_connection
        part: Any = self.tracked
        kind: Any = type(connection)
        connection.replswitch = tracker = Reader(raw, self.module) if read_only else Tracker(raw)
        connection.__class__ = _tracked(kind, _ReadOnly, part) if read_only else _tracked(kind, part)
        tracker.track()

    def writes_of(self, raw: Raw) -> Tracker:
        """Return the tracker, which is an attribute of the driver's own connection."""
        connection = raw.driver_connection
        if not hasattr(connection, "replswitch"):
            connection.replswitch = Tracker(raw)
        return connection.replswitch  # type: ignore[no-any-return]  # a Tracker

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server."""
        return _MYSQL.fetch_position(self.writes_of(raw))

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait with a function of the server until it has reached a position. Return False after a time-out."""
        return _MYSQL.wait_for(self.writes_of(raw), position, seconds)

    def is_rolled_back(self, raw: Raw) -> bool:
        """Return whether the latest command was a commit or rollback by the driver, and its answer has arrived."""
        tracker = self.writes_of(raw)
        return tracker.has_ended and not tracker.has_run and not tracker.status & IN_TRANSACTION

    def has_common_positions(self, raw: Raw) -> bool:
        """Return True, except for a node of Galera, because the positions of such nodes are independent."""
        return _MYSQL.has_common_positions(self.writes_of(raw))


@cache
def _tracked(kind: Any, *parts: Any) -> Any:
    """Return a subclass of ``kind``, a class of connections, that passes the answers to the write tracker."""
    tracked: Any = type(kind.__name__, (*parts, kind), {"__module__": __name__})
    following: Any = super(Tracked, tracked)
    tracked._send, tracked._read_answer = following._execute_command, following._read_query_result
    return tracked
