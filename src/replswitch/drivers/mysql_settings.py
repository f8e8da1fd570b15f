"""Settings of PyMySQL and mysqlclient: their kinds, the time-outs, and the verification of a host's certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from replswitch.checking import is_number
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


# The settings for which the drivers take nothing but a number.
_NUMBERS: Final = ("client_flag", "connect_timeout", "max_allowed_packet", "port", "read_timeout", "write_timeout")


# The settings for which they take an object, and never a text.
_OBJECTS: Final = ("auth_plugin_map", "conv", "cursorclass", "ssl")


def require_kinds(settings: Mapping[str, Any], server: str) -> None:
    """Refuse a text instead of a number or an object, such as a port from an environment variable.

    Raises:
        ConfigurationError: a setting is of the wrong kind.
    """
    for name in _NUMBERS:
        value = settings.get(name)
        if value is not None and not is_number(value):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is {value!r}. It must be a number, as in int(os.environ["…"]).'
            )
    for name in _OBJECTS:
        if isinstance(settings.get(name), str):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is a text. It must be an object, as the driver itself takes it.'
            )
    port = settings.get("port") or 0
    if not (isinstance(port, int) and 0 <= port < 2**16):
        raise ConfigurationError(f'The setting "port" of {server} is {port!r}. It must be a number from 0 to 65535.')


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
