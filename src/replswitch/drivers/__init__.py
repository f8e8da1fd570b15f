"""What differs from one DB-API driver to the next, one module a driver.

A driver opens physical connections and answers questions about them. It sends no statement that it was not told to
send, executes none twice and never reconnects.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

#: Any driver's connection or cursor: PEP 249 names their methods, but no common class.
Raw = Any

#: The drivers by the name that `replswitch.connect` takes, with the package to install.
_DRIVERS: Final = {"pymysql": "replswitch[mysql]", "sqlite3": "replswitch[mysql]"}


class Driver(Protocol):
    """One DB-API driver. The module itself, with its exceptions, is `module`."""

    module: ModuleType

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that cannot work with ConfigurationError, before anything is opened."""

    def address(self, settings: Mapping[str, Any]) -> str:
        """Name the server that the settings lead to, for people: ``slave1.db``, ``127.0.0.1:3307``."""

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

    def take_written(self, raw: Raw) -> bool:
        """Say whether a write was committed since the question was last asked (M1)."""

    def read_on(self, raw: Raw) -> None:
        """Read the answers that an earlier statement still owes (a procedure's further result sets)."""

    def refused_write(self, error: BaseException) -> bool:
        """Say whether the error is the database refusing to write through a read-only connection (S8)."""

    def unreachable(self, error: BaseException) -> bool:
        """Say whether the error means that the server is not there or went away."""

    def rolled_back(self, raw: Raw, error: Exception) -> bool:
        """Say whether the server gave up the open transaction along with the statement."""


def load_driver(name: str) -> Driver:
    """Return the driver called ``name``.

    Raises:
        ConfigurationError: the driver is not known, or what it needs is not installed.
    """
    if name not in _DRIVERS:
        raise ConfigurationError(
            f"Unknown driver {name!r}. replswitch.connect() works with {' and '.join(map(repr, _DRIVERS))}."
        )
    try:
        driver: Driver = import_module(f"replswitch.drivers.{name}").DRIVER
    except ImportError as error:
        raise ConfigurationError(
            f"The driver {name!r} needs {error.name}, which is not installed: pip install '{_DRIVERS[name]}'."
        ) from error
    return driver
