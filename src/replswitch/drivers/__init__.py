"""The DB-API drivers. Each has a module of its own.

For a database that replswitch does not know, subclass `Driver` and pass an instance to `replswitch.connect`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from replswitch.drivers.driver import GONE, Driver, Fault, Raw
from replswitch.drivers.written import WriteTracker, Written, later
from replswitch.errors import ConfigurationError

__all__ = ["GONE", "Driver", "Fault", "Raw", "WriteTracker", "Written", "later", "load_driver"]

#: The drivers by the name that `replswitch.connect` takes, with the package to install.
_DRIVERS: Final = {
    "pymysql": "replswitch[mysql]",
    "mysqlclient": "replswitch[mysqlclient]",
    "psycopg": "replswitch[postgresql]",
    "sqlite3": "replswitch",
}

#: The drivers that only the bindings for Django and SQLAlchemy can use, with the package to install.
_OF_BINDINGS: Final = {"psycopg2": "psycopg2"}


def load_driver(driver: str | Driver, *, binding: bool = False) -> Driver:
    """Return the driver with this name. A `Driver` that the application has made is returned unchanged.

    Args:
        driver: the name, or the driver.
        binding: the driver is for a binding, which needs neither a read time-out nor ``nextset()``.

    Raises:
        ConfigurationError: the driver is not known, or its module is not installed.
    """
    if isinstance(driver, Driver):
        return driver
    packages = {**_DRIVERS, **_OF_BINDINGS}
    if driver in _OF_BINDINGS and not binding:
        raise ConfigurationError(
            f"replswitch.connect() does not work with {driver}, which has no read time-out. Use psycopg 3: set"
            " driver=\"psycopg\", and run pip install 'replswitch[postgresql]'."
        )
    if driver not in packages:
        *others, last = map(repr, _DRIVERS)
        raise ConfigurationError(
            f"Unknown driver {driver!r}. replswitch.connect() works with {', '.join(others)} and {last}, and with "
            "instances of replswitch.drivers.Driver."
        )
    try:
        loaded: Driver = import_module(f"replswitch.drivers.{driver}").DRIVER
    except ImportError as error:
        raise ConfigurationError(
            f"The driver {driver!r} needs {error.name}, which is not installed: pip install '{packages[driver]}'."
        ) from error
    return loaded
