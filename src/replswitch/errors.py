"""The errors of replswitch.

::

    ReplSwitchError
    ├── ConfigurationError    a setting or an option is wrong; raised when it is given, not at the first query
    ├── RevertError           revert() found nothing of the application's to undo
    ├── PositionError         a text that should be a position of replication is none
    ├── SlaveWriteError       a write reached a slave and could not be moved to the master
    └── NoServerError         no server is left that could serve the statement

What the database itself says against a statement stays the driver's own error.
"""

from __future__ import annotations

import copyreg
from typing import Any


class ReplSwitchError(Exception):
    """The root of the tree: ``except ReplSwitchError`` catches every error that replswitch raises itself.

    Errors survive pickling and copying, with their attributes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed


class ConfigurationError(ReplSwitchError):
    """A setting or an option is missing, unknown or of the wrong kind. The message names it and the cure."""


class RevertError(ReplSwitchError):
    """``revert()`` was called more often than ``use_master()`` and ``use_slave()``."""


class PositionError(ReplSwitchError):
    """A text, from wherever it came, is no position of replication. The message says what one looks like."""


class SlaveWriteError(ReplSwitchError):
    """A write was refused by a slave, and to repeat it on the master would not be safe or is not wanted.

    The database's own error is the ``__cause__``.

    Attributes:
        server: the name of the slave that refused.
        place: where the application asked for it, as ``file:line in function``.
    """

    def __init__(self, message: str, *, server: str, place: str) -> None:
        super().__init__(message)
        self.server = server
        self.place = place


class NoServerError(ReplSwitchError):
    """No server can serve the statement. The driver's own error is the ``__cause__``.

    Attributes:
        server: the name of the server that was asked last.
    """

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server = server
