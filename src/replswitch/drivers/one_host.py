"""A host that is looked up (``resolve``, F7): check the settings of its servers, and connect to one address of it."""

from __future__ import annotations

from typing import Any

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
            f"{what} needs a host name to look up. It does not work with a Unix socket, an address or a service. Give"
            " the slave a host name, or leave the setting out."
        )
    if "," in name or not str(port).isdecimal():
        raise ConfigurationError(f"{what} needs one host and one port. Write one entry in the slaves for each host.")
    return name, int(str(port))


def at_address(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the address to connect to (``hostaddr``) instead of the host."""
    address = settings.pop("hostaddr", None)
    return settings if address is None else {**settings, "host": address}


def refuse_check_of_host(what: str, driver: str, ssl: Any, modes: tuple[object, ...] = ()) -> None:
    """Refuse settings of an asyncio driver with which TLS would verify an address instead of the host's name.

    Args:
        what: the setting in messages.
        driver: the driver's name.
        ssl: the driver's setting of this name: a context, a dictionary of asyncmy, or another value.
        modes: the other values with which the driver verifies the host.

    Raises:
        ConfigurationError: the driver would verify the host.
    """
    if isinstance(ssl, dict):
        verifies = (ssl.get("ca") or ssl.get("capath")) and ssl.get("check_hostname", True)
    else:
        verifies = getattr(ssl, "check_hostname", ssl in modes)
    if verifies:
        raise ConfigurationError(
            f"{what} does not work with {driver} and a TLS setting that verifies the host: {driver} would verify the"
            " certificate against the address instead of the host name. Give the driver an ssl.SSLContext with"
            " check_hostname = False, which still verifies who has signed the certificate, or leave the option out."
        )
