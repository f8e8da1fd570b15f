"""psycopg 3, on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from replswitch.drivers.postgresql import CONNECT_TIMEOUT, NO_RESPONSE, READ_TIMEOUT, PostgreSQLFamilyDriver
from replswitch.drivers.psycopg_connection import PsycopgConnection
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
                f"replswitch needs libpq 14 or newer, to send several statements at once. Here it is"
                f" {pq.version_pretty(pq.version())}: pip install 'replswitch[postgresql]' brings its own."
            )

    def known_settings(self, settings: Mapping[str, Any]) -> set[str]:
        """Ask libpq for all."""
        return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    def target(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, merged with those of ``conninfo``."""
        names = ("host", "hostaddr", "port", "dbname", "user")
        known = {name: settings[name] for name in names if settings.get(name)}
        return psycopg.conninfo.conninfo_to_dict(str(settings.get("conninfo") or ""), **known)

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> PsycopgConnection:
        """Connect. The setting that makes a slave's connection read-only survives RESET ALL and DISCARD ALL."""
        arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **settings, "autocommit": True}
        limit = arguments.pop("read_timeout", READ_TIMEOUT if read_only else None)
        if read_only:
            arguments["options"] = f"{settings.get('options') or ''} -c default_transaction_read_only=on".strip()
        raw: PsycopgConnection = PsycopgConnection.connect(**arguments)
        try:
            raw.prepare(read_only=read_only)
            raw.limit = limit
        except BaseException:
            raw.close()
            raise
        return raw

    def readable(self, raw: PsycopgConnection) -> Callable[[int], object]:
        """Poll the socket."""
        return raw.poll

    def begin(self, raw: PsycopgConnection) -> None:
        """Send BEGIN."""
        psycopg.Cursor(raw).execute("BEGIN")
        raw.seen = raw.info.transaction_status

    def in_transaction(self, raw: PsycopgConnection) -> bool:
        """Return what the latest answer said."""
        return raw.info.transaction_status is not pq.TransactionStatus.IDLE and not raw.closed

    def ping_again(self, error: Any) -> int | None:
        """Ping. psycopg keeps the connection in its error."""
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return NO_RESPONSE
        return None if error.pgconn is None else pq.PGconn.ping(b" ".join(_again(error.pgconn)))


def _again(pgconn: Any) -> list[bytes]:
    """Return where a connection was to lead, for a ping."""
    return [
        option.keyword + b"='" + option.val.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
        for option in pgconn.info
        if option.val and option.keyword in {b"host", b"hostaddr", b"port", b"dbname", b"connect_timeout"}
    ]


DRIVER: Final = PsycopgDriver()
