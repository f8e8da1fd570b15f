"""psycopg 3, on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from replswitch.drivers.driver import Written
from replswitch.drivers.postgresql import NO_RESPONSE, READ_TIMEOUT, PostgreSQLFamilyDriver
from replswitch.drivers.psycopg_connection import PsycopgConnection
from replswitch.drivers.psycopg_server_cursor import TakenConnection
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class PsycopgDriver(PostgreSQLFamilyDriver):
    """See `replswitch.drivers.Driver`. The position of a write comes in the same round trip as its commit."""

    module = psycopg
    own_settings = frozenset({"autocommit", "cursor_factory", "row_factory"})
    module_settings = frozenset({"conninfo", "context", "prepare_threshold", "read_timeout"})

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that replswitch sets itself, and versions of libpq that are too old."""
        super().check(settings, server)
        if not psycopg.Pipeline.is_supported():
            raise ConfigurationError(
                f"replswitch needs libpq 14 or newer, to send several statements at once. The installed"
                f" version is {pq.version_pretty(pq.version())}. To get psycopg's own libpq, run pip install"
                " 'replswitch[postgresql]'."
            )

    def known_settings(self, settings: Mapping[str, Any]) -> set[str]:
        """Return the names of all settings that libpq knows."""
        return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    def target(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, merged with those of ``conninfo``."""
        names = ("host", "hostaddr", "port", "dbname", "user")
        known = {name: settings[name] for name in names if settings.get(name)}
        return psycopg.conninfo.conninfo_to_dict(str(settings.get("conninfo") or ""), **known)

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> PsycopgConnection:
        """Connect."""
        raw: PsycopgConnection = PsycopgConnection.connect(**self.arguments(settings, read_only=read_only))
        try:
            self._prepare(raw, settings, read_only=read_only)
        except BaseException:
            raw.close()
            raise
        return raw

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the arguments of psycopg's ``connect()`` for a connection in autocommit mode."""
        arguments = {**super().arguments(settings, read_only=read_only), "autocommit": True}
        arguments.pop("read_timeout", None)
        return arguments

    def take(self, raw: Any, settings: Mapping[str, Any], *, read_only: bool) -> bool:
        """Track a connection. Its cursors keep their class."""
        if isinstance(raw, PsycopgConnection):  # from a pool
            raw.written, raw.news = Written.NO, True
            return self.alive(raw)
        raw.__class__ = TakenConnection
        factory = raw.cursor_factory
        self._prepare(raw, settings, read_only=read_only)
        raw.cursor_factory = factory
        return True

    def _prepare(self, raw: PsycopgConnection, settings: Mapping[str, Any], *, read_only: bool) -> None:
        raw.prepare(read_only=read_only)
        raw.limit = settings.get("read_timeout", READ_TIMEOUT if read_only else None)

    def readable(self, raw: PsycopgConnection) -> Callable[[int], object]:
        """Poll the socket."""
        return raw.poll

    def begin(self, raw: PsycopgConnection) -> None:
        """Send BEGIN, with the isolation level of the connection."""
        level = raw.isolation_level
        name = "" if level is None else f" ISOLATION LEVEL {level.name.replace('_', ' ')}"
        psycopg.Cursor(raw).execute(f"BEGIN{name}")
        raw.seen = raw.info.transaction_status

    def in_transaction(self, raw: PsycopgConnection) -> bool:
        """Return what the latest answer said."""
        return raw.info.transaction_status is not pq.TransactionStatus.IDLE and not raw.closed

    def ping_again(self, error: Any) -> int | None:
        """Ping the server of a failed connection, to which the error refers as ``pgconn``."""
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return NO_RESPONSE
        return None if error.pgconn is None else pq.PGconn.ping(b" ".join(_again(error.pgconn)))


def _again(pgconn: Any) -> list[bytes]:
    """Return the connection parameters of a failed connection, for a ping."""
    return [
        option.keyword + b"='" + option.val.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
        for option in pgconn.info
        if option.val and option.keyword in {b"host", b"hostaddr", b"port", b"dbname", b"connect_timeout"}
    ]


DRIVER: Final = PsycopgDriver()
