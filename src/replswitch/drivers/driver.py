"""The base class of drivers, and the meanings of errors."""

from __future__ import annotations

import time
from base64 import b32encode
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from replswitch.drivers.written import UNKNOWN, Written
from replswitch.errors import ConfigurationError, PositionError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import ModuleType

    from replswitch.drivers.written import WriteTracker
    from replswitch.positions import Position

#: Any driver's connection or cursor. PEP 249 names their methods, but defines no common class.
Raw = Any

#: Seconds between two queries while waiting for a server to reach a position.
_POLL_EVERY = 0.005

#: The error message for a statement that would end the read-only mode of a slave's connection (S7).
MUST_STAY_READ_ONLY = (
    "replswitch does not let a statement make a slave's connection writable. Call use_master() to write."
)


class Fault(Enum):
    """The meaning of an error, as `replswitch.drivers.Driver.classify` returns it.

    The table in `replswitch.engine.failure` decides what follows from each.
    """

    REFUSED = "the session is read-only, so the database refused a write"
    READ_ONLY = "the server is read-only, so it refused a write"
    UNSENT = "the connection was lost before the statement was sent, so it certainly did not run"
    LOST = "the connection was lost while the statement ran"
    TIMED_OUT = "no answer came in time, because the server is gone or the statement is slow"
    SLOW = "no answer came in time, and the server accepts new connections"
    DOWN = "the server reports that it is not available, because it shuts down or has left its cluster"
    FULL = "the server accepts no further connections"
    CONFLICT = "replication conflicts with the read"
    DEADLOCK = "the server ended a deadlock, and rolled the transaction back"
    ROLLED_BACK = "the server rolled the transaction back"
    UNDEFINED = "a table or column does not exist, on a slave perhaps because a migration has not arrived"
    OTHER = "the statement is wrong, or the error would be the same on every other server"


#: The faults which mean that the server could not be reached, or is not available.
GONE = frozenset({Fault.UNSENT, Fault.LOST, Fault.TIMED_OUT, Fault.DOWN, Fault.FULL})


class Driver:
    """One DB-API driver. Subclass it, and pass an instance to `replswitch.connect` as ``driver``.

    A driver opens physical connections and reports their state. It sends no statement on its own, runs none twice,
    and never reconnects.

    The defaults are those of a plain DB-API module in autocommit mode, without positions. A subclass must at least
    set `module`, and override `open`, `address`, `schema` and `classify`.

    In the methods, ``raw`` is a connection of the module (in `returned_rows`, a cursor), and ``settings`` are the
    settings of one server. With ``read_only``, the connection is one to a slave. ``seconds`` is a time-out or a wait.

    Attributes:
        module: the DB-API module, for its exceptions.
        engine: the kind of server, for the commands that list servers, such as ``"mysql"`` (for MariaDB, too); empty
            for a database that replswitch does not know.
        default_port: the port of a server whose address contains none; None if servers have no ports.
        must_ask: True if `WriteTracker.pop_write_status` never returns a position, so that the server must be queried
            for it. Reads on the master then run over read-only connections, which need no such query.
        opens_connections: False if SQLAlchemy opens the connections, with the result of `arguments`.
        in_memory: the database is in memory, so master state and slave state must share one connection.
        begins_with_writes: the module begins a transaction at the first write only, so `begin_adopted` is called before
            the first statement.
        has_serializable_slaves: transactions on slaves may have the isolation level SERIALIZABLE.
        commit_waits_for_readers: a commit waits for transactions that read, as on a single SQLite file.
        reads_may_lock: a write may have to wait until another transaction that has only read ends.
        keeps_description: a closed cursor still has its ``description``.
        has_latest_position: `latest_position` may return a position.
        streaming_methods: the methods of a cursor, beside those of PEP 249, that run a statement and pass its rows one
            by one, such as ``copy``. For each of them, the cursor has a method that returns as soon as the statement
            has begun, such as ``begin_copy``.
    """

    module: ModuleType
    engine = ""
    default_port: int | None = None
    must_ask = False
    opens_connections = True
    in_memory = False
    begins_with_writes = False
    has_serializable_slaves = True
    commit_waits_for_readers = False
    reads_may_lock = False
    keeps_description = False
    has_latest_position = False
    streaming_methods: frozenset[str] = frozenset()

    def for_database(self) -> Self:
        """Return the driver for the connections to the servers of one more replicated database.

        By default, this is the driver itself. A driver that keeps what it learns about servers must return a copy that
        has learned nothing yet. Servers of different databases may be clones, with the same identity and other data
        (P4).
        """
        return self

    # Settings

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that cannot work, before anything is opened.

        Args:
            settings: the settings of one server, as the module's ``connect`` takes them.
            server: the server's name in messages.

        Raises:
            ConfigurationError: a setting is missing, unknown, or set by replswitch itself.
        """

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the server for messages, such as ``slave1.db`` or ``127.0.0.1:3307``."""
        raise NotImplementedError

    def endpoint(self, address: str) -> tuple[str, int | None]:
        """Return the host (or the socket) and the port in an address that `address` has returned, for tools.

        The host is empty if servers have no addresses.
        """
        if self.default_port is None:
            return "", None
        if address.endswith(")"):  # one address of a host: slaves.db (10.0.0.7:3306)
            address = address[address.rindex("(") + 1 : -1]
        host, _, port = address.rpartition(":")
        if host and port.isdecimal() and (":" not in host or host.endswith("]")):
            return host.strip("[]"), int(port)
        return address, None if address.startswith(("/", "@")) else self.default_port

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port in the settings of slaves behind one name (``resolve``).

        Args:
            settings: the settings. replswitch later adds ``hostaddr``, one address of the host. `open`, and a
                connection with the result of `arguments`, must then connect to it, while TLS verifies the host.
            what: the setting in messages: ``The setting "resolve" of slave number 1``.

        Raises:
            ConfigurationError: the settings do not name one host, or the driver cannot connect like this.
        """
        raise ConfigurationError(
            f"{what} does not work with {self.module.__name__}, which cannot connect to a given address of a host. "
            "Leave the setting out."
        )

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database in the settings, such as ``shop``. It is the same on each server."""
        raise NotImplementedError

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return a text that is equal for all settings of the same server. By default, the address."""
        return self.address(settings)

    def set_name(self, settings: Mapping[str, Any]) -> str:
        """Return the name of a master's replicated set (M8). Clients see it, so it is a digest of the location (M6)."""
        return b32encode(sha256(self.location(settings).encode()).digest()[:5]).decode().lower()

    # Connections

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> Raw:
        """Open a connection in autocommit mode. With ``read_only`` the database itself refuses writes (S7)."""
        raise NotImplementedError

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the arguments of the module's ``connect``, for a binding that opens the connections itself."""
        return dict(settings)

    def open_for_report(self, settings: Mapping[str, Any], seconds: float) -> Raw:
        """Open a read-only connection with a time-out in seconds, for the commands that list servers."""
        return self.open(settings, read_only=True)

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Prepare a connection for SQLAlchemy, which begins transactions by itself.

        Args:
            raw: the connection, from `open`, or opened with `arguments`.
            read_only: it is a connection to a slave.
            begin: the isolation level of the engine, if transactions begin with it; else empty.
        """

    def begin_adopted(self, raw: Raw) -> None:
        """Begin a transaction on a connection that `adopt` has prepared, unless the module begins it by itself."""

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the tracker of the connection's writes; the same object each time."""
        return UNKNOWN

    def readable(self, raw: Raw) -> Callable[[int], object]:
        """Return a function that takes 0 (a time-out) and returns a true value if the connection has something to read.

        Between statements a server sends nothing. So if there is something to read, either the server has closed the
        connection, or a result is unread.
        """
        return bool  # bool(0) is False: there is nothing to read

    def alive(self, raw: Raw) -> bool:
        """Return whether the connection is still open, without a round trip."""
        return True

    def ping(self, raw: Raw) -> None:
        """Send a query to check the server. Raise the driver's own error if it fails."""
        raw.cursor().execute("SELECT 1")

    def reusable(self, raw: Raw) -> bool:
        """Reset a connection for its next user. Return False if it must be closed instead."""
        return True

    def drain_results(self, raw: Raw) -> None:
        """Read the unread results of an earlier statement, such as a procedure's further result sets."""

    def returned_rows(self, raw: Raw) -> bool:
        """Return whether the latest statement of a cursor has returned rows."""
        return raw.description is not None

    # Transactions

    def begin(self, raw: Raw) -> None:
        """Begin a transaction."""
        cursor = raw.cursor()
        cursor.execute("BEGIN")
        cursor.close()

    def commit(self, raw: Raw) -> None:
        """Commit the transaction."""
        raw.commit()

    def rollback(self, raw: Raw) -> None:
        """Roll the transaction back."""
        raw.rollback()

    def in_transaction(self, raw: Raw) -> bool:
        """Return whether a transaction is open, as far as that is known without a round trip."""
        return False

    def is_rolled_back(self, raw: Raw) -> bool:
        """Return True if a rollback would do nothing, because a commit or a rollback was the latest statement."""
        return False

    # Positions

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server (P2). This takes one round trip.

        Returns:
            the identity, which is the same for all connections to the server; and the position, or None without one.

        Raises:
            Exception: the driver's own error.
            PositionError: the answer is not a position.
        """
        raise PositionError(f"{type(self).__name__} does not report positions.")

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait until the server has reached a position. Return False after a time-out."""
        until = time.monotonic() + seconds
        while True:
            reached = self.fetch_position(raw)[1]
            if reached is not None and reached.includes(position):
                return True
            if time.monotonic() >= until:
                return False
            self.pause(raw, _POLL_EVERY)

    def pause(self, raw: Raw, seconds: float) -> None:
        """Wait before the position is queried again."""
        time.sleep(seconds)

    def latest_position(self, raw: Raw) -> Position | Written:
        """Query a position of the master that includes all commits so far, even those of other connections."""
        return Written.YES

    def seconds_behind(self, raw: Raw) -> float | None:
        """Query and return the lag of a slave in seconds; `math.inf` if replication has stopped; None if not known."""
        return None

    def has_common_positions(self, raw: Raw) -> bool:
        """Return whether the position of a slave can be compared with that of the master."""
        return True

    # Errors

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error.

        Args:
            error: an error of the module.
            raw: the connection on which a statement failed; None while connecting.
        """
        return Fault.OTHER

    def is_gone(self, error: BaseException, raw: Raw | None = None) -> bool:
        """Return whether an error means that the server cannot be reached, or is not available. See `classify`."""
        return self.classify(error, raw) in GONE
