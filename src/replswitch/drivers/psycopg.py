"""psycopg 3, on PostgreSQL."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from replswitch.checking import refuse_unknown
from replswitch.drivers.driver import Driver, Fault, Written
from replswitch.drivers.postgresql import BEHIND, FAULTS, ON_SLAVES_ONLY, POSITION, position_of
from replswitch.drivers.psycopg_connection import PsycopgConnection
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from replswitch.positions import Position

#: Settings that replswitch sets itself.
_OURS: Final = frozenset({"autocommit", "cursor_factory", "row_factory"})

#: Settings that are not libpq's: psycopg's own, and the time-out for an answer, which replswitch adds.
_OF_PSYCOPG: Final = frozenset({"conninfo", "context", "prepare_threshold", "read_timeout"})

#: The default time-outs in seconds, as with the drivers of MySQL (F5): libpq has none for an answer.
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 20


class PsycopgDriver(Driver):
    """See `replswitch.drivers.Driver`. The position of a write comes in the same round trip as its commit."""

    module = psycopg
    engine = "postgresql"

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that replswitch sets itself."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(f'The setting "{name}" of {server} is set by replswitch itself. Leave it out.')
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        refuse_unknown(f"setting of {server}", settings, known | _OF_PSYCOPG)
        if not psycopg.Pipeline.is_supported():
            raise ConfigurationError(
                f"replswitch needs libpq 14 or newer, to send several statements at once. Here it is"
                f" {pq.version_pretty(pq.version())}: pip install 'replswitch[postgresql]' brings its own."
            )

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the host, with its port unless that is 5432."""
        known = psycopg.conninfo.conninfo_to_dict(str(settings.get("conninfo") or ""), **_known(settings))
        port = str(known.get("port") or 5432)
        return f"{known.get('host') or known.get('hostaddr') or 'localhost'}{'' if port == '5432' else f':{port}'}"

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database."""
        known = psycopg.conninfo.conninfo_to_dict(str(settings.get("conninfo") or ""), **_known(settings))
        return str(known.get("dbname") or known.get("user") or "")

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

    def open_for_report(self, settings: Mapping[str, Any], seconds: float) -> PsycopgConnection:
        """Open a read-only connection with time-outs of its own."""
        limits = {"connect_timeout": max(math.ceil(seconds), 2), "read_timeout": seconds}  # libpq takes 1 for 2
        return self.open({**settings, **limits}, read_only=True)

    def writes_of(self, raw: PsycopgConnection) -> PsycopgConnection:
        """Return the connection itself."""
        return raw

    def readable(self, raw: PsycopgConnection) -> Callable[[int], object]:
        """Poll the socket."""
        return raw.poll

    def alive(self, raw: PsycopgConnection) -> bool:
        """Check the socket. After a fork, a connection belongs to the parent process."""
        return not raw.closed and raw.process == os.getpid() and not raw.poll(0)

    def ping(self, raw: PsycopgConnection) -> None:
        """Send an empty statement."""
        psycopg.Cursor(raw).execute("")

    def reusable(self, raw: PsycopgConnection) -> bool:
        """Roll back an open transaction. A link with a changed session is closed instead (S11)."""
        if raw.session_changed or not self.alive(raw):
            return False
        try:
            raw.rollback()
        except psycopg.Error:
            return False
        raw.written = Written.NO
        return True

    def begin(self, raw: PsycopgConnection) -> None:
        """Send BEGIN."""
        psycopg.Cursor(raw).execute("BEGIN")
        raw.seen = raw.info.transaction_status

    def in_transaction(self, raw: PsycopgConnection) -> bool:
        """Return what the latest answer said."""
        return raw.info.transaction_status is not pq.TransactionStatus.IDLE and not raw.closed

    def fetch_position(self, raw: PsycopgConnection) -> tuple[Hashable, Position | None]:
        """Ask."""
        row = psycopg.Cursor(raw).execute(POSITION).fetchone()
        return position_of(row or ())

    def seconds_behind(self, raw: PsycopgConnection) -> float | None:
        """Ask a slave since when it has not applied what has arrived; None if the account may not see the receiver."""
        seconds, is_slave, receives = psycopg.Cursor(raw).execute(BEHIND).fetchone() or (None, False, None)
        if not is_slave or receives is None:
            return None
        return seconds if receives else math.inf

    def classify(self, error: BaseException, raw: PsycopgConnection | None = None) -> Fault:
        """Classify by SQLSTATE. A failed connect has none, so libpq's ping shows whether the server is there."""
        state = getattr(error, "sqlstate", None)
        if state in FAULTS and not (state in ON_SLAVES_ONLY and (raw is None or not raw.is_reader)):
            return FAULTS[state]
        if raw is not None and raw.timed_out:
            return Fault.TIMED_OUT
        if raw is not None:
            if not raw.closed or state is not None:
                return Fault.OTHER
            return Fault.UNSENT if "the connection is closed" in str(error) else Fault.LOST
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return Fault.UNSENT
        if state is not None or not isinstance(error, psycopg.OperationalError) or error.pgconn is None:
            return Fault.OTHER
        told = pq.Ping(pq.PGconn.ping(b" ".join(_again(error.pgconn))))
        if told is pq.Ping.REJECT:
            return Fault.DOWN
        if told is pq.Ping.OK:
            return Fault.FULL if "too many" in str(error) or "connection slots" in str(error) else Fault.OTHER
        return Fault.UNSENT


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("host", "hostaddr", "port", "dbname", "user") if settings.get(name)}


def _again(pgconn: Any) -> list[bytes]:
    """Return where a connection was to lead, for a ping."""
    return [
        option.keyword + b"='" + option.val.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
        for option in pgconn.info
        if option.val and option.keyword in {b"host", b"hostaddr", b"port", b"dbname", b"connect_timeout"}
    ]


DRIVER: Final = PsycopgDriver()
