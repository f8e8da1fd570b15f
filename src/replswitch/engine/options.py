"""The options of a database."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from replswitch.checking import is_number, refuse_unknown, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: A read waits for a slave no longer than this, in seconds: the visitor waits too.
LONGEST_WAIT: Final = 60

#: A slave is tried again after this time, in seconds, at the latest.
LONGEST_DOWNTIME: Final = 3600

#: What is known of a server's position holds no longer than this, in seconds.
LONGEST_KNOWN_FOR: Final = 3600

OnSlaveWrite = Literal["master", "error", "force"]


class DatabaseOptionNames(TypedDict, total=False):
    """The same options as keyword arguments, for type checkers."""

    on_slave_write: OnSlaveWrite
    wait: float
    downtime: float
    max_lag: float | None
    fallback: Literal["master", "error"]
    known_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """How a database is served.

    Attributes:
        on_slave_write: what becomes of a write in slave state. ``"master"`` runs it there and logs a warning, unless
            its transaction has read from the slave; ``"force"`` runs it there in that case too, at the risk of lost
            updates; ``"error"`` raises SlaveWriteError (S8).
        wait: seconds that a read may wait, once a scope, for a slave to reach what it must see, before the master
            serves it.
        downtime: seconds for which a slave that has failed is out of rotation, before one reader tries it again.
        max_lag: seconds; a slave further behind gets no reads. Measured every few seconds, beside the readers. None: no
            slave is too far behind for visitors who have nothing of their own to see.
        fallback: who serves reads when no slave is left: ``"master"``, or ``"error"`` raises NoServerError, so that
            dead slaves do not overload the master. Reads that must see what no slave has yet go to the master all the
            same.
        known_for: seconds for which a slave's answer about its position holds (P4).

    Raises:
        ConfigurationError: a value is of the wrong kind.
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
    """Make the options of what a user gave as keyword arguments.

    Args:
        caller: the function that the user called; a name that is close to one of its own arguments is told so.
        given: the arguments that it does not have itself.

    Raises:
        ConfigurationError: a name is unknown or a value is of the wrong kind.
    """
    own = inspect.signature(caller).parameters.keys() - {"options"}
    refuse_unknown(f"option of {caller.__name__}()", given, own | DatabaseOptionNames.__annotations__.keys())
    return DatabaseOptions(**given)
