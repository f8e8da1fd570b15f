"""The errors of a throw-away pair.

::

    ReplSwitchError
    └── PairError                  the pair cannot do what it was asked to
        ├── ServerNotFoundError    the database server is not installed on this machine
        ├── ServerStartError       a server did not come up; the message ends with its log
        └── NotCaughtUpError       a slave did not get everything in time (a TimeoutError, too)

A wrong argument is a :class:`replswitch.errors.ConfigurationError`, as everywhere in replswitch.
"""

from __future__ import annotations

from replswitch.errors import ReplSwitchError


class PairError(ReplSwitchError):
    """The pair cannot do what it was asked to. The message says which server and why."""


class ServerNotFoundError(PairError):
    """The database server is not installed on this machine. The message says what to install."""


class ServerStartError(PairError):
    """A server ended while it started, or was not ready in time.

    Attributes:
        server: the name of the server in the pair, as in ``pair.kill(name)``.
        log: the last lines of what the server wrote.
    """

    def __init__(self, message: str, *, server: str, log: str) -> None:
        super().__init__(f"{message}\nThe end of its log:\n{log}" if log else f"{message} It wrote no log.")
        self.server = server
        self.log = log


class NotCaughtUpError(PairError, TimeoutError):
    """A slave had not applied everything when the time was over, or cannot go on replicating at all.

    Attributes:
        server: the name of the slave in the pair.
    """

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server = server
