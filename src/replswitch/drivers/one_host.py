"""Check that a server's settings name one host, which can be looked up (``resolve``, F7)."""

from __future__ import annotations

from replswitch.errors import ConfigurationError


def one_host(what: str, host: object, port: object, *others: object) -> tuple[str, int]:
    """Return the host and the port.

    Args:
        what: the setting in messages: ``The setting "resolve" of slave number 1``.
        host: the host in the settings; None if they have none.
        port: the port.
        others: further settings that say where the server is: an address, a socket, a service.

    Raises:
        ConfigurationError: there is no host, or there are several.
    """
    name = str(host or "")
    if not name or name.startswith(("/", "@")) or any(others):
        raise ConfigurationError(
            f"{what} needs a host name to look up, and no Unix socket, address or service beside it. Give the slave a"
            " host name, or leave the setting out."
        )
    if "," in name or not str(port).isdecimal():
        raise ConfigurationError(f"{what} needs one host and one port. Write one entry in the slaves for each host.")
    return name, int(str(port))
