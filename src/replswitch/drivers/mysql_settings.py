"""Settings of PyMySQL and mysqlclient: the default time-outs, and the verification of a host's certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# With these, the client library of mysqlclient verifies the certificate. It knows only the host that it connects to.
_VERIFYING: Final = {"VERIFY_CA", "VERIFY_IDENTITY"}

#: The default time-outs in seconds, for a new connection, and for the answer to a statement on a slave. After that, a
#: server that accepts packets but never answers is treated as gone. The second one is shorter than the usual worker
#: time-out of application servers (30 s), so that a hanging slave does not get the worker killed (F5).
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 20


def with_timeouts(settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
    """Return the settings with time-outs. The master has no read time-out, because an ALTER TABLE may take long."""
    defaults = {"connect_timeout": CONNECT_TIMEOUT}
    if read_only:
        # Both get one value, because with two, PyMySQL would set the socket's time-out twice for each statement.
        defaults["read_timeout"] = defaults["write_timeout"] = settings.get("read_timeout", READ_TIMEOUT)
    return {**defaults, **settings}


def time_limits(timeout: float) -> dict[str, int]:
    """Return a time-out as settings of the drivers, rounded up because they take whole seconds."""
    seconds = math.ceil(timeout)
    return {"connect_timeout": seconds, "read_timeout": seconds}


def refuse_verification(what: str, settings: Mapping[str, Any]) -> None:
    """Refuse each ``ssl_mode`` with which mysqlclient would verify an address instead of the host's name.

    Raises:
        ConfigurationError: the settings have such an ``ssl_mode``.
    """
    mode = str(settings.get("ssl_mode") or "").upper()
    if mode in _VERIFYING:
        raise ConfigurationError(
            f'{what} does not work with mysqlclient and ssl_mode "{mode}": mysqlclient would verify the certificate'
            " against the address instead of the host name. Use PyMySQL, which verifies the name, or leave the setting"
            " out."
        )
