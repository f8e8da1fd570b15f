"""The common part of the drivers of PostgreSQL: settings, connections, and the meanings of errors."""

from __future__ import annotations

import math
import os
import re
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from replswitch.checking import refuse_unknown
from replswitch.drivers.driver import Driver, Fault
from replswitch.drivers.one_host import one_host
from replswitch.drivers.postgresql_lag import BEHIND
from replswitch.drivers.postgresql_position import POSITION, Timelines
from replswitch.drivers.written import Written
from replswitch.errors import ConfigurationError
from replswitch.positions.clock import warn_once

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from replswitch.drivers.driver import Raw
    from replswitch.drivers.written import WriteTracker
    from replswitch.positions import Position

_NO_STANDBY: Final = (
    "The server {} is given as a slave, but it is not in recovery. So it follows no master, and serves no reads that"
    " must see a write. Make it a standby of the master, or take it out of the slaves."
)

#: The default time-outs in seconds, for the reasons in `replswitch.drivers.mysql` (F5). libpq has no read time-out.
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 20

#: The codes of https://www.postgresql.org/docs/current/errcodes-appendix.html, with their meaning on a slave.
FAULTS: Final = {
    "25006": Fault.REFUSED,  # read_only_sql_transaction; a standby refuses with it, too
    "40001": Fault.CONFLICT,  # serialization_failure: a conflict with replay
    "40P01": Fault.CONFLICT,  # deadlock_detected, with replay
    "0A000": Fault.CONFLICT,  # feature_not_supported: unlogged tables, and SERIALIZABLE, on a standby
    "42P01": Fault.UNDEFINED,  # undefined_table
    "42703": Fault.UNDEFINED,  # undefined_column
    "57P01": Fault.LOST,  # admin_shutdown: of the server, or of this session only
    "57P02": Fault.LOST,  # crash_shutdown: likewise
    "57P03": Fault.DOWN,  # cannot_connect_now
    "57P05": Fault.UNSENT,  # idle_session_timeout
    "53300": Fault.FULL,  # too_many_connections
}

# read_only_sql_transaction, insufficient_privilege
_REFUSED: Final = "25006"
_NO_RIGHT: Final = "42501"

#: Codes without a special meaning on the master, where the application rolls back the transaction, or a part of it.
ON_SLAVES_ONLY: Final = frozenset({"40001", "40P01", "0A000"})

# The messages of psycopg and psycopg2 when a closed connection is used.
_CLOSED: Final = re.compile("connection is closed|connection already closed|the connection is lost")

#: The text of the error for a connection to a slave that is not read-only.
NOT_READ_ONLY: Final = (
    "the connection does not refuse writes, because a connection pooler has not passed default_transaction_read_only on"
)

#: The text of the error for two-phase commits.
NO_TWO_PHASE: Final = "replswitch has no two-phase commit, because the position of COMMIT PREPARED is not known."

# Answers of PQping: the server accepts connections, it refuses all of them, it does not answer.
OK: Final = 0
_REJECT: Final = 1
NO_RESPONSE: Final = 2

# A failed connect has no SQLSTATE. Its message is that of a server that refuses the connection, or that of libpq after
# the connection was lost.
_FULL: Final = re.compile("too many|connection slots")
_STARTS: Final = re.compile("starting up|shutting down|recovery mode|not (?:yet )?accepting connections")
_BROKEN: Final = re.compile(
    "closed the connection|could not (?:receive|send)|[Cc]onnection (?:reset|refused)|[Tt]imed? ?out|[Bb]roken pipe"
)


class PostgreSQLFamilyDriver(Driver):
    """The base class of the drivers for PostgreSQL, such as psycopg and psycopg2.

    Its connections are instances of `replswitch.drivers.postgresql_tracker.PostgreSQLTracker`. They also have the
    attribute ``process``, the id of the process that has opened them, and the method ``question``, which runs a query
    of replswitch's own and returns its row.

    Attributes:
        module_settings: the settings of replswitch, and those of the module's ``connect`` that libpq does not have.
        timelines: the known timelines of the database's servers.
    """

    engine = "postgresql"
    default_port = 5432
    has_serializable_slaves = False
    own_settings: ClassVar[frozenset[str]] = frozenset()
    module_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.timelines = Timelines()

    def for_database(self) -> Self:
        """Return a copy that knows nothing of the servers yet."""
        made = copy(self)
        made.timelines = Timelines()
        return made

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that the module does not know, and those that replswitch sets itself."""
        for name in sorted(self.own_settings & set(settings)):
            raise ConfigurationError(f'The setting "{name}" of {server} is set by replswitch itself. Leave it out.')
        refuse_unknown(f"setting of {server}", settings, self.known_settings(settings) | self.module_settings)

    def known_settings(self, settings: Mapping[str, Any]) -> set[str]:
        """Return names of settings that libpq knows: all of them, or at least those in ``settings``."""
        raise NotImplementedError

    def target(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that identify the server, by libpq's names: host, hostaddr, port, user, dbname.

        A driver that takes a connection string overrides this method, and also reads the string.
        """
        known = {name: settings.get(name) for name in ("host", "hostaddr", "port", "user", "dbname")}
        return {**known, "dbname": settings.get("database") or known["dbname"]}

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the host, with its port unless that is 5432. Commas separate several hosts."""
        known = self.target(settings)
        hosts = [host or "localhost" for host in _several(known.get("host") or known.get("hostaddr"))]
        ports = _several(known.get("port"))
        if len(ports) == 1:
            ports *= len(hosts)
        pairs = zip(hosts, ports, strict=False)
        return ",".join(
            host if port in {"", "5432"} else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in pairs
        )

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return the address, with host names in lower case, and libpq's ``service``, which may set the address."""
        hosts = [
            each if each.startswith(("/", "@")) else each.lower().replace(".:", ":").rstrip(".")
            for each in self.address(settings).split(",")
        ]
        service = settings.get("service") or self.target(settings).get("service")
        return "\n".join(filter(None, (",".join(hosts), service)))

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port."""
        known = self.target(settings)
        service = settings.get("service") or known.get("service")
        return one_host(what, known.get("host"), known.get("port") or 5432, known.get("hostaddr"), service)

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database."""
        known = self.target(settings)
        return str(known.get("dbname") or known.get("user") or "")

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the arguments of the module's ``connect()``.

        With ``read_only``, they have a setting that makes the session read-only, even after RESET ALL and DISCARD ALL.
        """
        arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **settings}
        if read_only:
            arguments["options"] = f"{settings.get('options') or ''} -c default_transaction_read_only=on".strip()
        return arguments

    @contextmanager
    def connecting(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Run a block that calls the module's ``connect()``. A subclass adds to errors what `ping_again` needs."""
        yield

    def take(self, raw: Raw, settings: Mapping[str, Any], *, read_only: bool) -> bool:
        """Track a connection that a binding has opened with `arguments`.

        Args:
            raw: the connection; new, or from a pool.
            settings: the settings of the server.
            read_only: it is a connection to a slave.

        Returns:
            False if a connection of a pool is dead. Then close it, and take another one. Otherwise, True.

        Raises:
            Exception: the module's error, after the connection was closed. Either the connection was lost, or it is a
                master's connection and the server is a standby.
        """
        raise NotImplementedError

    def open_for_report(self, settings: Mapping[str, Any], seconds: float) -> Raw:
        """Open a read-only connection whose time-outs are ``seconds``."""
        limits = {
            "connect_timeout": max(math.ceil(seconds), 2),
            "read_timeout": seconds,
        }  # libpq raises a connect_timeout of 1 to 2
        return self.open({**settings, **limits}, read_only=True)

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the connection itself, which is its own write tracker."""
        tracker: WriteTracker = raw
        return tracker

    def alive(self, raw: Raw) -> bool:
        """Return whether the connection is open. In a forked child, return False, because it belongs to the parent."""
        return not raw.closed and raw.process == os.getpid() and not self.readable(raw)(0)

    def ping(self, raw: Raw) -> None:
        """Send a query to check the server."""
        raw.question("SELECT 1")

    def reusable(self, raw: Raw) -> bool:
        """Roll back an open transaction. Return False if the session has changed, so that it must be closed (S11)."""
        if raw.session_changed or not self.alive(raw):
            return False
        try:
            raw.rollback()
        except self.module.Error:
            return False
        raw.written = Written.NO
        return True

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Turn autocommit off."""
        raw.autocommit = False

    def begin_now(self, raw: Raw) -> None:
        """Begin a transaction, and send BEGIN at once."""
        self.begin(raw)

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the server's identity and position. If a slave has no WAL receiver, query its WAL files, too."""
        row = raw.question(POSITION)
        timelines: Sequence[int] = ()
        # The account may lack the right to list the files. In a transaction, the error would end the transaction.
        if raw.may_list_files and (query := self.timelines.query_for_timeline(row)) and not self.in_transaction(raw):
            try:
                timelines = raw.question(query)[0] or ()
            except self.module.Error as error:
                if _state(error) != _NO_RIGHT:
                    raise
                raw.may_list_files = False
        identity, position = self.timelines.position_of(row, timelines, is_reader=raw.is_reader)
        # Before the master is known, this server may be the master.
        if position is None and not row[2] and self.timelines.master:
            warn(raw, _NO_STANDBY)
        return identity, position

    def seconds_behind(self, raw: Raw) -> float | None:
        """Return for how many seconds a slave has not applied what the master has reported.

        Returns:
            the seconds; infinity if no WAL receiver is streaming, or if nothing bounds the lag; None if the server is
            not a slave, or if the account may not see the WAL receiver.
        """
        seconds, is_slave, receives = raw.question(BEHIND)
        if not is_slave or receives is None:
            return None
        return float(seconds) if receives else math.inf

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error by its SQLSTATE. For a failed connect, which has none, ping the server."""
        state = _state(error)
        if state == _REFUSED and raw is not None and not raw.is_reader and _refuses_all(raw):
            return Fault.READ_ONLY
        if state in FAULTS and not (state in ON_SLAVES_ONLY and (raw is None or not raw.is_reader)):
            return FAULTS[state]
        if raw is not None:
            if raw.timed_out:
                return Fault.TIMED_OUT
            if not raw.closed or state is not None:
                return Fault.OTHER
            return Fault.UNSENT if _CLOSED.search(str(error)) else Fault.LOST
        if state is not None or not isinstance(error, self.module.OperationalError):
            return Fault.OTHER
        reply = self.ping_again(error)
        if reply == _REJECT:
            return Fault.DOWN
        if reply == OK:
            return connect_fault(str(error))
        return Fault.UNSENT if reply is not None else Fault.OTHER

    def ping_again(self, error: BaseException) -> int | None:
        """Ping the server to which a connection has failed, with libpq's ``PQping``.

        Returns:
            libpq's answer; None if the target of the connection is not known.
        """
        raise NotImplementedError


def _several(value: Any) -> list[str]:
    """Return the values of a setting as a list. For several values, libpq takes a text with commas, asyncpg a list."""
    return list(map(str, value)) if isinstance(value, list | tuple) else str(value or "").split(",")


def _state(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error; None if the server has not sent it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def warn(raw: Raw, text: str) -> None:
    """Log a warning about the server of a connection, once in each process."""
    warn_once(text.format(raw.server_name))


def connect_fault(text: str) -> Fault:
    """Return the meaning of a failed connect by its message, after a ping that the server has answered.

    The server may have come back between the connect and the ping. Or the network has broken the first connection only.
    """
    if _FULL.search(text):
        return Fault.FULL
    if _STARTS.search(text):
        return Fault.DOWN
    return Fault.UNSENT if _BROKEN.search(text) else Fault.OTHER


def _refuses_all(raw: Raw) -> bool:
    """Return whether the server has reported that it refuses all writes. Use this for a master's connection."""
    return "on" in map(raw.reported, ("in_hot_standby", "default_transaction_read_only"))
