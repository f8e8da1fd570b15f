"""What differs from one DB-API driver to the next, one module a driver.

A driver opens physical connections and answers questions about them. It sends no statement that it was not told to
send, executes none twice and never reconnects.
"""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from types import ModuleType

    from replswitch.positions import Position

#: Any driver's connection or cursor: PEP 249 names their methods, but no common class.
Raw = Any

#: The drivers by the name that `replswitch.connect` takes, with the package to install.
_DRIVERS: Final = {
    "pymysql": "replswitch[mysql]",
    "mysqlclient": "replswitch[mysqlclient]",
    "sqlite3": "replswitch[mysql]",
}


class Written(Enum):
    """What is known of a write on the master whose position is not."""

    NO = "nothing was written"
    YES = "something was, or may have been, and nobody can tell its position"
    ASK = "something may have been written, and the server can be asked (`Driver.ask_written`)"


def later(first: Position | Written, second: Position | Written) -> Position | Written:
    """Return what is known of two writes of one session: the position of both, if that is known."""
    if first is Written.NO:
        return second
    if second is Written.NO:
        return first
    if Written.YES in (first, second):
        return Written.YES
    if isinstance(first, Written) or isinstance(second, Written):
        return Written.ASK
    return first.merge(second)


class Driver(Protocol):
    """One DB-API driver."""

    @property
    def module(self) -> ModuleType:
        """The module itself, with its exceptions."""

    @property
    def tells_of_writes(self) -> bool:
        """Whether the answer to a statement says what it wrote, so that nobody need ask; where there are positions."""

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that cannot work with ConfigurationError, before anything is opened."""

    def address(self, settings: Mapping[str, Any]) -> str:
        """Name the server that the settings lead to, for people: ``slave1.db``, ``127.0.0.1:3307``."""

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Name the database that the settings lead to, whichever server has it: ``shop``."""

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> Raw:
        """Open a connection in autocommit mode; with ``read_only`` the database itself refuses writes (S7)."""

    def alive(self, raw: Raw) -> bool:
        """Say whether the connection is still open, without a round trip."""

    def reusable(self, raw: Raw) -> bool:
        """Bring a connection that is given back to rest; False when it must be closed instead."""

    def begin(self, raw: Raw) -> None:
        """Begin a transaction."""

    def commit(self, raw: Raw) -> None:
        """Commit the transaction."""

    def rollback(self, raw: Raw) -> None:
        """Roll the transaction back."""

    def in_transaction(self, raw: Raw) -> bool:
        """Say whether a transaction is open, as the server told with its latest answer."""

    def take_written(self, raw: Raw) -> Position | Written:
        """Say what was committed since the question was last asked, without a round trip (M1, P1)."""

    def learns_behind_rows(self, raw: Raw) -> bool:
        """Say whether the end of a result tells more of its writes where they are in doubt already."""

    def latest(self, raw: Raw) -> Position | None:
        """Return the position of what the connection was last known to have written."""

    def ask_written(self, raw: Raw, since: Position | None) -> Position | Written:
        """Ask the server, where `take_written` said that it can be asked; one round trip.

        Args:
            raw: the connection.
            since: what `latest` returned before the statements in question: what is later was written by them, or by
                others beside them, where scopes share a connection.
        """

    def disown_written(self, raw: Raw, *, with_rows: bool) -> None:
        """Let what `take_written` has just told count for nobody.

        Args:
            raw: the connection.
            with_rows: statements that have returned rows may have written, too.
        """

    def prepare(self, raw: Raw) -> None:
        """Find out what `latest` is, where a write that counted for nobody has changed it; one round trip."""

    def standing(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Ask which server the connection leads to and how far it has come (P2); one round trip.

        What stands for the server is the same for all connections to it. The position is None where it has none.
        """

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Wait until the server has reached a position; False when it has not after so many seconds."""

    def seconds_behind(self, raw: Raw) -> float | None:
        """Ask how far behind a slave is: infinitely where replication has stopped; None where it does not tell us."""

    def read_on(self, raw: Raw) -> None:
        """Read the answers that an earlier statement still owes (a procedure's further result sets)."""

    def refused_write(self, error: BaseException) -> bool:
        """Say whether the error is the database refusing to write through a read-only connection (S8)."""

    def is_full(self, error: BaseException | None) -> bool:
        """Say whether the server is there, and takes no further connections."""

    def unreachable(self, error: BaseException) -> bool:
        """Say whether the error means that the server is not there or went away."""

    def conflicted(self, error: BaseException) -> bool:
        """Say whether a read on a slave failed because of what is being replicated, and may succeed again."""

    def timed_out(self, raw: Raw, error: BaseException) -> bool:
        """Say whether the time for an answer was over: the server may be gone, or the statement slow."""

    def not_sent(self, error: BaseException) -> bool:
        """Say whether the statement certainly did not run, because the connection was gone before."""

    def read_only_master(self, error: BaseException) -> bool:
        """Say whether the server that was taken for the master has become read-only."""

    def is_lost_master(self, error: BaseException) -> bool:
        """Say whether the server that was taken for the master is gone, or has become read-only."""

    def rolled_back(self, raw: Raw, error: Exception) -> bool:
        """Say whether the server gave up the open transaction along with the statement."""


def load_driver(name: str) -> Driver:
    """Return the driver called ``name``.

    Raises:
        ConfigurationError: the driver is not known, or what it needs is not installed.
    """
    if name not in _DRIVERS:
        *others, last = map(repr, _DRIVERS)
        raise ConfigurationError(
            f"Unknown driver {name!r}. replswitch.connect() works with {', '.join(others)} and {last}."
        )
    try:
        driver: Driver = import_module(f"replswitch.drivers.{name}").DRIVER
    except ImportError as error:
        raise ConfigurationError(
            f"The driver {name!r} needs {error.name}, which is not installed: pip install '{_DRIVERS[name]}'."
        ) from error
    return driver
