"""The options of a database."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from replswitch.checking import is_number, refuse_unknown, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The longest time, in seconds, that a read may wait for a slave. It is short, because the visitor waits as well.
LONGEST_WAIT: Final = 60

#: The longest time, in seconds, before a failed slave is tried again.
LONGEST_DOWNTIME: Final = 3600

#: The longest time, in seconds, for which the known position of a server may be used.
LONGEST_KNOWN_FOR: Final = 3600

OnSlaveWrite = Literal["master", "error", "force"]


class DatabaseOptionNames(TypedDict, total=False):
    """The options of `DatabaseOptions` as keyword arguments, for type checkers."""

    on_slave_write: OnSlaveWrite
    wait: float
    downtime: float
    max_lag: float | None
    fallback: Literal["master", "error"]
    known_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """The options that say which servers run the statements of a database, and what happens if they cannot.

    Attributes:
        on_slave_write: what happens to a write in slave state. ``"master"`` runs it on the master and logs a warning,
            unless its transaction has read from the slave; ``"force"`` runs it on the master in that case too, at the
            risk of lost updates; ``"error"`` raises SlaveWriteError (S8).
        wait: seconds that a read may wait, once in a scope, for a slave to catch up with what the read must see, before
            the master serves it.
        downtime: seconds for which a slave that has failed is out of rotation, before one reader tries it again.
        max_lag: seconds; a slave further behind gets no reads. The lag is measured every few seconds in the background.
            With None, visitors without a recent write of their own may read from a slave with any lag.
        fallback: what happens to reads when no slave is left: ``"master"`` serves them, ``"error"`` raises
            NoServerError, so that the master is not overloaded when slaves fail. Reads that must see a write which no
            slave has yet go to the master in both cases.
        known_for: seconds for which a slave's answer about its position is used (P4).

    Raises:
        ConfigurationError: a value is of the wrong type or out of range.
    """

    on_slave_write: OnSlaveWrite = "master"
    wait: float = 0
    downtime: float = 10
    max_lag: float | None = None
    fallback: Literal["master", "error"] = "master"
    known_for: float = 30

    def __post_init__(self) -> None:
        fine = self.on_slave_write in ("master", "error", "force")
        require(fine, "on_slave_write", self.on_slave_write, '"master", "error" or "force"')
        require(self.fallback in ("master", "error"), "fallback", self.fallback, '"master" or "error"')
        limits = (("wait", LONGEST_WAIT), ("downtime", LONGEST_DOWNTIME), ("known_for", LONGEST_KNOWN_FOR))
        for name, longest in limits:
            value = getattr(self, name)
            require(is_number(value) and 0 <= value <= longest, name, value, f"a number of seconds from 0 to {longest}")
        lag = self.max_lag
        require(lag is None or (is_number(lag) and lag > 0), "max_lag", lag, "a number of seconds above 0, or None")


def database_options(caller: Callable[..., Any], given: Mapping[str, Any]) -> DatabaseOptions:
    """Make the options from the keyword arguments of a user.

    Args:
        caller: the function that the user called; the error for an unknown name suggests a similar argument of it.
        given: the keyword arguments for which the function itself has no parameter.

    Raises:
        ConfigurationError: a name is unknown, or a value is of the wrong type or out of range.
    """
    own = inspect.signature(caller).parameters.keys() - {"options"}
    refuse_unknown(f"option of {caller.__name__}()", given, own | DatabaseOptionNames.__annotations__.keys())
    return DatabaseOptions(**given)
