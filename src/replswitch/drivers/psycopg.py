"""The driver psycopg 3 for PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from replswitch.drivers.driver import Fault
from replswitch.drivers.postgresql import NO_RESPONSE, READ_TIMEOUT, PostgreSQLFamilyDriver, warn
from replswitch.drivers.psycopg_connection import PsycopgConnection
from replswitch.drivers.written import Written
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_PREPARED: Final = (
    "The connection to {} goes through a connection pooler, and prepare_threshold is set. Prepared statements need"
    " PgBouncer 1.22 or newer, with max_prepared_statements above 0. Otherwise leave prepare_threshold out."
)

#: Results with rows.
_ROWS: Final = frozenset(
    {
        *map(int, (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK)),
        *map(int, (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)),
    }
)
_DONE: Final = int(pq.ExecStatus.COMMAND_OK)

#: The states in which no transaction is open: idle, and unknown because the connection is closed.
_OUTSIDE: Final = frozenset(map(int, (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)))


class PsycopgDriver(PostgreSQLFamilyDriver):
    """The `replswitch.drivers.Driver` for psycopg 3. The position of a write comes in the round trip of its commit."""

    module = psycopg
    keeps_description = True
    streaming_methods = frozenset({"copy", "stream"})
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
        """Return the names of all settings that libpq supports."""
        return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    def target(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, merged with those of ``conninfo``."""
        names = ("host", "hostaddr", "port", "dbname", "user")
        known = {name: settings[name] for name in names if settings.get(name)}
        return psycopg.conninfo.conninfo_to_dict(str(settings.get("conninfo") or ""), **known)

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> PsycopgConnection:
        """Open a connection in autocommit mode. With ``read_only``, the session itself refuses writes (S7)."""
        arguments = self.arguments(settings, read_only=read_only)
        try:
            raw: PsycopgConnection = PsycopgConnection.connect(**arguments)
        except psycopg.OperationalError as error:
            if not read_only or settings.get("options") or "unsupported startup parameter" not in str(error):
                raise
            del arguments["options"]  # PgBouncer does not accept the parameter
            raw = PsycopgConnection.connect(**arguments)
        if type(raw) is psycopg.Connection:  # OpenTelemetry's uninstrument() leaves a connect() that ignores subclasses
            raw.__class__ = PsycopgConnection
        self._prepare(raw, settings, read_only=read_only)
        return raw

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the arguments of psycopg's ``connect()`` for a connection in autocommit mode."""
        arguments = {**super().arguments(settings, read_only=read_only), "autocommit": True}
        arguments.pop("read_timeout", None)
        return arguments

    def take(self, raw: Any, settings: Mapping[str, Any], *, read_only: bool) -> bool:
        """Track a connection that a binding has opened. Return False if a connection from a pool is dead."""
        if isinstance(raw, PsycopgConnection):  # from a pool
            raw.written, raw.news = Written.NO, True
            if self.alive(raw):
                return True
            raw.pgconn.finish()  # close() may return it to the pool instead, which would not notice that it is dead
            return False
        raw.__class__ = PsycopgConnection
        self._prepare(raw, settings, read_only=read_only)
        return True

    def _prepare(self, raw: PsycopgConnection, settings: Mapping[str, Any], *, read_only: bool) -> None:
        raw.limit = settings.get("read_timeout", READ_TIMEOUT if read_only else None)
        try:
            raw.prepare(self.timelines, read_only=read_only)
        except BaseException:
            raw.pgconn.finish()  # close() may return it to a pool instead
            raise
        if "prepare_threshold" in settings:
            raw.may_prepare = raw.prepare_threshold is not None
            if raw.is_behind_pooler and raw.may_prepare:
                warn(raw, _PREPARED)
        elif raw.is_behind_pooler:
            raw.prepare_threshold = None  # the next transaction may run in a session without the prepared statement
            raw.may_prepare = False

    def readable(self, raw: PsycopgConnection) -> Callable[[int], object]:
        """Return a function that polls the socket."""
        return raw.poll

    def returned_rows(self, raw: Any) -> bool:
        """Return whether the result of a cursor has rows. psycopg's ``description`` takes longer to show this."""
        result = raw.pgresult
        if result is None:
            return False
        # The result of a server-side cursor has only the description of its rows.
        status = result.status
        return result.nfields > 0 if status == _DONE else status in _ROWS

    def begin(self, raw: PsycopgConnection) -> None:
        """Begin a transaction, with the isolation level of the connection. BEGIN is sent with its first statement."""
        raw.begins = True

    def begin_now(self, raw: PsycopgConnection) -> None:
        """Begin a transaction, and send BEGIN at once."""
        raw.begin_now()

    def in_transaction(self, raw: PsycopgConnection) -> bool:
        """Return whether a transaction is open, from the status in the server's latest answer.

        While the rows of a statement outside a transaction are read one by one, libpq reports ACTIVE. This status does
        not count as a transaction.
        """
        return raw.begins or (raw.pgconn.transaction_status not in _OUTSIDE and not raw.is_alone)

    def classify(self, error: BaseException, raw: Any = None) -> Fault:
        """Return the meaning of an error. A statement whose BEGIN was not answered is treated as not sent."""
        fault = super().classify(error, raw)
        return Fault.UNSENT if fault is Fault.LOST and raw is not None and raw.begins else fault

    def ping_again(self, error: Any) -> int | None:
        """Ping the server of the failed connection, which is in the attribute ``pgconn`` of the error."""
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return NO_RESPONSE
        return None if error.pgconn is None else pq.PGconn.ping(b" ".join(_ping_parameters(error.pgconn)))


def _ping_parameters(pgconn: Any) -> list[bytes]:
    """Return the parameters of a connection that could not be opened, to ping its server."""
    return [
        option.keyword + b"='" + option.val.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
        for option in pgconn.info
        if option.val and option.keyword in {b"host", b"hostaddr", b"port", b"dbname", b"connect_timeout"}
    ]


DRIVER: Final = PsycopgDriver()
