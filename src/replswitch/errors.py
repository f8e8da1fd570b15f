"""The errors of replswitch.

::

    ReplSwitchError
    ├── ConfigurationError    a setting or an option is wrong; raised when it is given, not at the first query
    ├── RevertError           revert() found no use_master() or use_slave() of the application to undo
    ├── PositionError         a text is not a valid replication position
    ├── SlaveWriteError       a write reached a slave and could not be moved to the master
    └── NoServerError         no server is left that can serve the statement

If the database itself rejects a statement, the driver's own error is raised unchanged.
"""

from __future__ import annotations

import copyreg
from typing import Any


class ReplSwitchError(Exception):
    """The base class, so ``except ReplSwitchError`` catches every error that replswitch raises itself.

    Errors can be pickled and copied, and keep their attributes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed


class ConfigurationError(ReplSwitchError):
    """A setting or an option is missing, unknown or wrong. The message names the option, and says what to do."""


class RevertError(ReplSwitchError):
    """``revert()`` was called more often than ``use_master()`` and ``use_slave()``."""


class PositionError(ReplSwitchError):
    """A text is not a valid replication position. The message describes the expected form."""


class SlaveWriteError(ReplSwitchError):
    """A slave has refused a write, and repeating the write on the master would not be safe, or is disabled.

    The database's own error is the ``__cause__``.

    Attributes:
        server: the name of the slave that has refused the write.
        place: the place in the application that made the write, as ``file:line in function``.
    """

    def __init__(self, message: str, *, server: str, place: str) -> None:
        super().__init__(message)
        self.server = server
        self.place = place


class NoServerError(ReplSwitchError):
    """No server can serve the statement. The driver's own error is the ``__cause__``.

    Attributes:
        server: the name of the server that was tried last.
    """

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server = server
