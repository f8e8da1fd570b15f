"""The errors of a throw-away pair.

::

    ReplSwitchError
    └── PairError                  the pair cannot do what the test asked for
        ├── ServerNotFoundError    the database server is not installed on this machine
        ├── ServerStartError       a server did not start; the message ends with its log
        └── NotCaughtUpError       a slave did not get everything in time (a TimeoutError, too)

A wrong argument is a :class:`replswitch.errors.ConfigurationError`, as everywhere in replswitch.
"""

from __future__ import annotations

from replswitch.errors import ReplSwitchError


class PairError(ReplSwitchError):
    """The pair cannot do what the test asked for. The message has the server and the reason."""


class ServerNotFoundError(PairError):
    """The database server is not installed on this machine. The message says what to install."""


class ServerStartError(PairError):
    """A server ended while it started, or was not ready in time.

    Attributes:
        server: the name of the server in the pair, as in ``pair.kill(name)``.
        log: the last lines of the log of the server.
    """

    def __init__(self, message: str, *, server: str, log: str) -> None:
        super().__init__(f"{message}\nThe end of its log:\n{log}" if log else f"{message} It wrote no log.")
        self.server = server
        self.log = log


class NotCaughtUpError(PairError, TimeoutError):
    """A slave had not applied everything when the time was over, or its replication has failed.

    Attributes:
        server: the name of the slave in the pair.
    """

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server = server
