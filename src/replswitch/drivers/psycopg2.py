"""The driver psycopg2 for PostgreSQL."""

from __future__ import annotations

import ctypes
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import (
    ISOLATION_LEVEL_READ_COMMITTED,
    ISOLATION_LEVEL_READ_UNCOMMITTED,
    ISOLATION_LEVEL_REPEATABLE_READ,
    ISOLATION_LEVEL_SERIALIZABLE,
    TRANSACTION_STATUS_IDLE,
)

from replswitch.drivers.postgresql import NO_RESPONSE, READ_TIMEOUT, PostgreSQLFamilyDriver
from replswitch.drivers.psycopg2_connection import Psycopg2Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from replswitch.drivers.written import Written
    from replswitch.positions import Position


_LEVELS: Final = {
    ISOLATION_LEVEL_READ_UNCOMMITTED: " ISOLATION LEVEL READ UNCOMMITTED",
    ISOLATION_LEVEL_READ_COMMITTED: " ISOLATION LEVEL READ COMMITTED",
    ISOLATION_LEVEL_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    ISOLATION_LEVEL_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}


class Psycopg2Driver(PostgreSQLFamilyDriver):
    """The `replswitch.drivers.Driver` for psycopg2.

    The position of a write outside a transaction takes a query of its own.
    """

    module = psycopg2
    must_ask = has_latest_position = True
    own_settings = frozenset({"autocommit", "connection_factory", "cursor_factory", "async", "async_"})
    module_settings = frozenset({"dsn", "database", "read_timeout"})

    def known_settings(self, settings: Mapping[str, Any]) -> set[str]:
        """Return the names in ``settings`` that libpq supports."""
        return {name for name in settings if _is_known(name)}

    def target(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, merged with those of ``dsn``."""
        known = {name: settings[name] for name in _TARGET if settings.get(name)}
        if settings.get("database"):
            known["dbname"] = settings["database"]
        return {**psycopg2.extensions.parse_dsn(settings.get("dsn") or ""), **known}

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> Psycopg2Connection:
        """Open a connection in autocommit mode. With ``read_only``, the session itself refuses writes (S7)."""
        arguments = self.arguments(settings, read_only=read_only)
        with self.connecting(arguments):
            raw: Psycopg2Connection = psycopg2.connect(**arguments)
        self.take(raw, settings, read_only=read_only)
        return raw

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the arguments of psycopg2's ``connect()``.

        psycopg2 has no read time-out. So libpq's ``tcp_user_timeout`` and its keepalives are set from ``read_timeout``.
        They end a connection if the server's host no longer confirms packets.
        """
        arguments = {**super().arguments(settings, read_only=read_only), "connection_factory": Psycopg2Connection}
        limit = arguments.pop("read_timeout", READ_TIMEOUT if read_only else None)
        if limit is not None:
            seconds = max(round(limit / 4), 1)
            alive = {"keepalives_idle": seconds, "keepalives_interval": seconds, "keepalives_count": 3}
            arguments = {"tcp_user_timeout": max(round(limit * 1000), 1), **alive, **arguments}
        return arguments

    @contextmanager
    def connecting(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Store the settings of the server in an OperationalError, so that `ping_again` can ping the server."""
        began = time.monotonic()
        try:
            yield
        except psycopg2.OperationalError as error:
            is_late = time.monotonic() - began >= float(arguments["connect_timeout"]) > 0
            known = {name: str(value) for name, value in self.target(arguments).items() if name in _TARGET}
            target = psycopg2.extensions.make_dsn(connect_timeout=arguments["connect_timeout"], **known)
            error.target = None if is_late else target  # type: ignore[attr-defined]  # added here
            raise

    def latest_position(self, raw: Psycopg2Connection) -> Position | Written:
        """Query the master's current position."""
        return raw.latest_position()

    def take(self, raw: Psycopg2Connection, settings: Mapping[str, Any], *, read_only: bool) -> bool:
        """Prepare a connection that was just opened, and return True. If this fails, close the connection."""
        try:
            raw.prepare(self.timelines, read_only=read_only)
        except BaseException:
            raw.close()
            raise
        return True

    def readable(self, raw: Psycopg2Connection) -> Callable[[int], object]:
        """Return a function that polls the socket."""
        return raw.ready

    def begin(self, raw: Psycopg2Connection) -> None:
        """Send BEGIN, with the isolation level of the connection."""
        raw.send(f"BEGIN{_LEVELS.get(raw.isolation_level or 0, '')}")
        raw.seen = raw.info.transaction_status

    def in_transaction(self, raw: Psycopg2Connection) -> bool:
        """Return whether a transaction is open, from the status in the server's latest answer."""
        return not raw.closed and raw.info.transaction_status != TRANSACTION_STATUS_IDLE

    def ping_again(self, error: Any) -> int | None:
        """Ping the server with the libpq that psycopg2 has loaded, because psycopg2 itself has no such function."""
        if not hasattr(error, "target"):
            return None
        if error.target is None:
            return NO_RESPONSE
        try:
            ping = ctypes.CDLL(psycopg2._psycopg.__file__).PQping
        except (OSError, AttributeError):  # psycopg2 contains a libpq whose functions it does not export
            return NO_RESPONSE
        return int(ping(error.target.encode()))


def _is_known(name: str) -> bool:
    try:
        psycopg2.extensions.make_dsn(**{name: ""})
    except (psycopg2.ProgrammingError, TypeError):
        return False
    return True


_TARGET: Final = ("host", "hostaddr", "port", "dbname", "user")


DRIVER: Final = Psycopg2Driver()
