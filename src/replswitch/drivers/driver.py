"""The base classes of drivers, the meanings of errors, and the states of a write."""

from __future__ import annotations

import time
from base64 import b32encode
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from replswitch.errors import PositionError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import ModuleType
    from weakref import ReferenceType

    from replswitch.positions import Position
    from replswitch.scope import Scope

#: Any driver's connection or cursor: PEP 249 names their methods, but no common class.
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
    TIMED_OUT = "no answer came in time: the server may be gone, or the statement slow"
    SLOW = "no answer came in time, and the server accepts new connections"
    DOWN = "the server reports that it is not available: it shuts down, or has left its cluster"
    FULL = "the server accepts no further connections"
    CONFLICT = "replication conflicts with the read"
    DEADLOCK = "the server ended a deadlock, and rolled the transaction back"
    ROLLED_BACK = "the server rolled the transaction back"
    UNDEFINED = "a table or column does not exist: on a slave, a migration may not have arrived"
    OTHER = "the statement is wrong, or the error would be the same on every other server"


#: The server could not be reached, or is not available.
GONE = frozenset({Fault.UNSENT, Fault.LOST, Fault.TIMED_OUT, Fault.DOWN, Fault.FULL})


class Written(Enum):
    """The state of a write on the master whose position is not known."""

    NO = "nothing was written"
    YES = "something was or may have been written, and its position cannot be determined"
    ASK = "something may have been written, and the server can be asked (`WriteTracker.ask`)"


def later(first: Position | Written, second: Position | Written) -> Position | Written:
    """Return the state of two writes of one session: the position that includes both, if both are known."""
    if first is Written.NO:
        return second
    if second is Written.NO:
        return first
    if Written.YES in (first, second):
        return Written.YES
    if isinstance(first, Written) or isinstance(second, Written):
        return Written.ASK
    return first.merge(second)


class WriteTracker:
    """Records what was committed through one connection (M1, P1). One object per connection.

    There are three kinds. PyMySQL and sqlite3 show it with each result. With mysqlclient, the server must be queried.
    With all others nothing is known; this base class is for them.

    Attributes:
        news: False if nothing can have changed since the last `pop_write_status`, and no transaction has begun or
            ended since then. It is a plain attribute, because it is read after every statement.
        unread: a result may be unread; `replswitch.drivers.Driver.drain_results` reads it.
        owes_results: a result is unread, and another statement after it may still write.
        streams: a result is being read row by row, so no other statement can run on the connection (S6). Then
            ``unread`` is True as well.
        session_changed: True on a slave's connection if a statement changed its session (variables, the current
            database), so that a write must not move away from it (S8).
        identity: the identity of the server, as the server reports it; None before it is known.
        last_known_position: the position of the latest write, as far as it is known.
        learns_after_rows: whether the end of a result can add something about a write that is pending.
        has_rows: the statement of the last `pop_write_status` has returned rows, as writes seldom do; False if unknown.
        includes_others: `ask` may return the position of other sessions' writes: the server has none for each session.
        on_write: called with the tracker when something may have been committed, and with True while a statement runs,
            so that the server cannot be queried. For a binding that does not see every statement.
        reports_all: each commit is in `pop_write_status`, also one that SQLAlchemy does not see.
        pending_in: the scope that must query the position of a write; None before the first one.
    """

    news = True
    unread = False
    owes_results = False
    streams: Any = False
    session_changed = False
    identity: Hashable | None = None
    last_known_position: Position | None = None
    learns_after_rows = False
    has_rows = False
    includes_others = False
    reports_all = False
    on_write: Callable[[WriteTracker, bool], object] | None = None
    pending_in: ReferenceType[Scope] | None = None

    def follow(self) -> None:
        """Update the state of the session after a statement. Called after each one that succeeded."""

    def pop_write_status(self) -> Position | Written:
        """Return what was committed since the last call, without a round trip."""
        return Written.YES

    def ask(self, since: Position | None) -> Position | Written:
        """Ask the server what was written. One round trip, after `pop_write_status` returned `Written.ASK`.

        Args:
            since: `last_known_position` before the statements in question. A later position comes from them, or
                from statements of other scopes that share the connection.

        Raises:
            Exception: the driver's own error.
            PositionError: the answer is not a position.
        """
        return Written.YES

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Drop the status that `pop_write_status` has just returned, so that it counts for no scope.

        Args:
            with_rows: statements that returned rows may have written as well.
        """

    def refresh_baseline(self) -> None:
        """Update `last_known_position` after writes that counted for no scope. At most one round trip."""


#: For unknown drivers. It has no state, so all connections share it.
UNKNOWN = WriteTracker()


class Driver:
    """One DB-API driver. Subclass it, and pass an instance to `replswitch.connect` as ``driver``.

    A driver opens physical connections and reports their state. It sends no statement on its own, runs none twice,
    and never reconnects.

    The defaults are those of a plain DB-API module in autocommit mode, without positions. A subclass must at least
    set `module`, and override `open`, `address`, `schema` and `classify`.

    Attributes:
        module: the DB-API module, for its exceptions.
        engine: the kind of server, for the commands that list servers: ``"mysql"`` (MariaDB too), ``"sqlite"``; empty
            for others.
        must_ask: True if `WriteTracker.pop_write_status` never returns a position, so that the server must be queried
            for it. Reads on the master then run over read-only connections, which need no such query.
        opens_connections: False if SQLAlchemy opens them, with `arguments`.
        in_memory: the database is in memory, so both states must share one connection.
        begins_with_writes: the module begins a transaction at the first write only, so `begin_adopted` is called first.
        has_serializable_slaves: transactions on slaves may have the isolation level SERIALIZABLE.
        commit_waits_for_readers: a commit waits for transactions that read, as on a single SQLite file.
        keeps_description: a closed cursor still has its ``description``.
        streaming_methods: the methods of a cursor, beside those of PEP 249, that run a statement and pass its rows one
            by one: ``copy`` and ``stream``. For each of them, the cursor has a method that returns as soon as the
            statement has begun: ``begin_copy``, ``begin_stream``.
    """

    module: ModuleType
    engine = ""
    must_ask = False
    opens_connections = True
    in_memory = False
    begins_with_writes = False
    has_serializable_slaves = True
    commit_waits_for_readers = False
    keeps_description = False
    streaming_methods: frozenset[str] = frozenset()

    # Settings

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that cannot work, before anything is opened.

        Args:
            settings: the settings of one server, as the module's ``connect`` takes them.
            server: the server's name in the message.

        Raises:
            ConfigurationError: a setting is missing, unknown, or set by replswitch itself.
        """

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the server for messages: ``slave1.db``, ``127.0.0.1:3307``."""
        raise NotImplementedError

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database in the settings, the same on each server: ``shop``."""
        raise NotImplementedError

    def location(self, settings: Mapping[str, Any]) -> str:
        """Return a text that is equal for all settings of the same server. By default, the address."""
        return self.address(settings)

    def set_name(self, settings: Mapping[str, Any]) -> str:
        """Return the name of a master's replicated set (M8): a digest, because clients see it (M6)."""
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
        """Begin a transaction on a connection that `adopt` has prepared, if the module does not do so itself."""

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the tracker of the connection's writes; the same object each time."""
        return UNKNOWN

    def readable(self, raw: Raw) -> Callable[[int], object]:
        """Return a function that, called with 0, is true if the connection has something to read.

        Between statements a server sends nothing, so either it has closed the connection, or a result is unread.
        """
        return bool  # bool(0): nothing

    def alive(self, raw: Raw) -> bool:
        """Return whether the connection is still open, without a round trip."""
        return True

    def ping(self, raw: Raw) -> None:
        """Send a query to check the server. Raise the driver's own error if it fails."""
        raw.cursor().execute("SELECT 1")

    def reusable(self, raw: Raw) -> bool:
        """Clean a connection for the next user; False if it must be closed instead."""
        return True

    def drain_results(self, raw: Raw) -> None:
        """Read the results of an earlier statement that are unread, such as a procedure's further result sets."""

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

    # Positions

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server (P2). One round trip.

        Returns:
            the identity, the same for all connections to the server; and its position, None if it has none.

        Raises:
            Exception: the driver's own error.
            PositionError: the answer is not a position.
        """
        raise PositionError(f"{type(self).__name__} has no positions.")

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

    def seconds_behind(self, raw: Raw) -> float | None:
        """Query the lag of a slave: `math.inf` if replication has stopped, None if it is not known."""
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
