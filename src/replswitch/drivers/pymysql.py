"""PyMySQL, on MariaDB and MySQL."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS

from replswitch.drivers import Written, mysql
from replswitch.drivers.family import MySQLFamilyDriver
from replswitch.drivers.gtids import last_written
from replswitch.drivers.tracking import TrackingConnection
from replswitch.errors import ConfigurationError
from replswitch.options import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.positions import Position

# Ours to decide: transactions are begun and ended by replswitch, and a link is open from its beginning.
_OURS: Final = {"autocommit", "defer_connect"}
_SETTINGS: Final = set(inspect.signature(Connection.__init__).parameters) - {"self"} - _OURS


class PyMySQLDriver(MySQLFamilyDriver):
    """See `replswitch.drivers.Driver`. What tells of a write is the position in the server's answer to it."""

    module = pymysql
    tells_of_writes = True

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that PyMySQL does not know, and those that are replswitch's own."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is replswitch\'s own to make. Leave it out; autocommit is an '
                "argument of connect()."
            )
        refuse_unknown(f"setting of {server}", settings, _SETTINGS)

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> TrackingConnection:
        """Connect, with session tracking where the server has it."""
        arguments = {
            **mysql.with_timeouts(settings, read_only=read_only),
            "client_flag": settings.get("client_flag", 0) | CLIENT.SESSION_TRACK,
        }
        return TrackingConnection(read_only=read_only, **arguments, autocommit=True)

    def alive(self, raw: TrackingConnection) -> bool:
        """Look at the socket: what the server closed can be read from."""
        return raw.alive()

    def reusable(self, raw: TrackingConnection) -> bool:
        """Roll back what is open; a half-read result or a changed autocommit mode is not worth repairing."""
        result = raw._result
        if (result is not None and (result.unbuffered_active or result.has_next)) or not raw.alive():
            return False
        if self.in_transaction(raw):
            try:
                raw.rollback()
            except pymysql.Error:
                return False
        raw.written = Written.NO
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT)

    def begin(self, raw: TrackingConnection) -> None:
        """Send BEGIN."""
        raw.begin()

    def commit(self, raw: TrackingConnection) -> None:
        """Send COMMIT."""
        raw.commit()

    def rollback(self, raw: TrackingConnection) -> None:
        """Send ROLLBACK."""
        raw.rollback()

    def in_transaction(self, raw: TrackingConnection) -> bool:
        """Return the flag SERVER_STATUS_IN_TRANS of the latest answer."""
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def take_written(self, raw: TrackingConnection) -> Position | Written:
        """Return what the server told; where it does not tell, every statement outside a transaction counts."""
        if not raw.tells:
            return Written.NO if self.in_transaction(raw) else Written.YES
        written = raw.written
        if written is not Written.NO:
            raw.written = Written.NO
        return written

    def latest(self, raw: TrackingConnection) -> Position | None:
        """Return the latest that was told."""
        return raw.latest

    def ask_written(self, raw: TrackingConnection, since: Position | None) -> Position | Written:
        """Ask for the session's latest GTID."""
        return last_written(raw, since)

    def disown_written(self, raw: TrackingConnection, *, with_rows: bool) -> None:
        """Nothing: the server tells of the next write by itself."""

    def prepare(self, raw: TrackingConnection) -> None:
        """Nothing: the server tells."""

    def read_on(self, raw: TrackingConnection) -> None:
        """Read the further results of a procedure that nobody has asked for."""
        while raw._result is not None and raw._result.has_next:
            raw.next_result()

    def rolled_back(self, raw: TrackingConnection, error: Exception) -> bool:
        """A deadlock (1213) takes the whole transaction, and so does a lost connection."""
        return mysql.deadlocked(error) or raw._sock is None


DRIVER: Final = PyMySQLDriver()
