"""The driver PyMySQL for MariaDB and MySQL."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING, Any, Final

import pymysql
from pymysql.charset import charset_by_name
from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS

from replswitch.checking import refuse_unknown
from replswitch.drivers.driver import Fault
from replswitch.drivers.mysql import MySQLFamilyDriver, innermost
from replswitch.drivers.mysql_settings import with_timeouts
from replswitch.drivers.tracking_connection import TrackingConnection
from replswitch.drivers.written import Written
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS: Final = set(inspect.signature(Connection.__init__).parameters) - {"self"}


class PyMySQLDriver(MySQLFamilyDriver):
    """The `replswitch.drivers.Driver` for PyMySQL. The server's answer to a write contains the write's position."""

    module = pymysql
    own_settings = {"autocommit", "defer_connect"}  # noqa: RUF012 - the base class says ClassVar

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that PyMySQL does not know, and those that replswitch sets itself."""
        super().check(settings, server)
        refuse_unknown(f"setting of {server}", settings, _SETTINGS - self.own_settings)
        charset = settings.get("charset")
        if charset and charset_by_name(str(charset)) is None:
            raise ConfigurationError(f'The setting "charset" of {server} is {charset!r}, which PyMySQL does not know.')

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> TrackingConnection:
        """Connect, with session tracking if the server supports it."""
        arguments = with_timeouts(settings, read_only=read_only)
        arguments["client_flag"] = settings.get("client_flag", 0) | CLIENT.SESSION_TRACK
        try:
            address = arguments.pop("hostaddr", None)
            if pymysql.connect is not Connection:  # a tool has wrapped connect(), to see connections (F6)
                raw: Any = pymysql.connect(**arguments, autocommit=True, defer_connect=True)
                if type(innermost(raw)) is Connection:
                    TrackingConnection.adopt(innermost(raw), read_only=read_only, address=address)
                    return raw  # type: ignore[no-any-return]  # the tool's proxy has the same methods
            return TrackingConnection(read_only=read_only, address=address, **arguments, autocommit=True)
        except Exception as error:
            # PyMySQL keeps the error in a variable of a frame that its traceback holds, and keeps the socket's error.
            # Until the garbage collector runs, these cycles keep the frames of all callers, and so the links in them.
            traceback.clear_frames(error.__traceback__)
            if isinstance(original := getattr(error, "original_exception", None), Exception):
                original.with_traceback(None)
            raise

    def reusable(self, raw: TrackingConnection) -> bool:
        """Roll back an open transaction. Return False if a result is unread, or the session has changed (S11)."""
        if raw.session_changed or (raw.unread and raw.owes_results) or raw._sock is None or raw.poll(0):
            return False
        if raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            try:
                raw.rollback()
            except pymysql.Error:
                return False
        raw.written = Written.NO
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT)

    def drain_results(self, raw: TrackingConnection) -> None:
        """Read a procedure's further results that the application has not read."""
        while raw._result is not None and raw._result.has_next:
            raw.next_result()
        raw.unread = raw.owes_results

    def begin(self, raw: TrackingConnection) -> None:
        """Send BEGIN."""
        raw.begin()

    def in_transaction(self, raw: TrackingConnection) -> bool:
        """Return whether a transaction is open, from the flag SERVER_STATUS_IN_TRANS of the latest answer."""
        return bool(raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def is_rolled_back(self, raw: TrackingConnection) -> bool:
        """Return whether PyMySQL's own commit or rollback was the latest statement."""
        return raw.has_ended and not raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS

    def classify(self, error: BaseException, raw: TrackingConnection | None = None) -> Fault:
        """Return the meaning of an error, by its code and by whether the connection is closed."""
        fault = super().classify(error, raw)
        is_closed = raw is not None and raw._sock is None
        if fault is Fault.OTHER and is_closed and not isinstance(error, pymysql.InternalError):
            return Fault.UNSENT  # PyMySQL's InterfaceError for a connection that is closed
        return fault


DRIVER: Final = PyMySQLDriver()
