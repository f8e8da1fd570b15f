"""Read addresses of servers from URLs such as ``mysql://user:password@host:port/database?charset=utf8mb4``.

The forms are those of SQLAlchemy, dj-database-url and libpq. No message shows a URL, which may contain a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers.driver import Driver

#: The schemes, with the kind of server (`Driver.engine`) and the driver of each.
_SCHEMES: Final = {
    "mysql": ("mysql", "pymysql"),
    "mariadb": ("mysql", "pymysql"),
    "postgresql": ("postgresql", "psycopg"),
    "postgres": ("postgresql", "psycopg"),
    "postgis": ("postgresql", "psycopg"),
    "sqlite": ("sqlite", "sqlite3"),
}

#: SQLAlchemy's names for drivers (after the ``+`` of a scheme) for which replswitch has another name.
_NAMES_OF_SQLALCHEMY: Final = {"mysqldb": "mysqlclient", "pysqlite": "sqlite3"}

# The settings that the drivers, or replswitch, take as a number or a flag. A URL contains them as text.
_NUMBERS: Final = frozenset(
    {
        *("cached_statements", "client_flag", "connect_timeout", "detect_types", "max_allowed_packet"),
        *("prepare_threshold", "read_timeout", "timeout", "weight", "write_timeout"),
    }
)
_FLAGS: Final = frozenset(
    {
        *("binary_prefix", "check_same_thread", "compress", "local_infile", "resolve", "ssl_disabled"),
        *("ssl_verify_cert", "ssl_verify_identity", "uri", "use_unicode"),
    }
)
# The settings for which the drivers take an object, such as a dictionary or a class. A URL cannot contain it.
_OBJECTS: Final = frozenset({"auth_plugin_map", "context", "conv", "cursorclass", "factory", "ssl"})
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_NOT_IN_HOSTS: Final = re.compile(r"[\s;\"'\\^`{|}<>]")
_YES: Final = frozenset({"1", "on", "true", "yes"})
_NO: Final = frozenset({"0", "off", "false", "no"})

_QUOTE: Final = (
    'In the user, the password and names, write special characters as percent codes: "#" is "%23", "/" is "%2F", "?" is'
    ' "%3F", "@" is "%40", "%" is "%25", "[" is "%5B", "]" is "%5D", a comma is "%2C", a space is "%20".'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerURL:
    """The parts of a URL. A part that the URL leaves out is empty.

    Attributes:
        engine: the kind of server: ``"mysql"`` (MariaDB too), ``"postgresql"`` or ``"sqlite"``.
        driver: the name of the driver, as `replswitch.connect` takes it.
        names_driver: the URL itself names the driver, as in ``mysql+mysqldb://``.
        host: the host, or several separated by commas (PostgreSQL); a path means a Unix socket (of PostgreSQL: the
            folder with the socket).
        port: the port, or several separated by commas.
        options: the options after the question mark, except those in other attributes. Numbers and flags are
            converted.
    """

    engine: str
    driver: str
    names_driver: bool
    host: str
    port: str
    user: str
    password: str = field(repr=False)
    database: str
    options: Mapping[str, Any] = field(repr=False)


def split_urls(text: str) -> list[str]:
    """Return the entries of a list in one string, as environment variables contain it.

    Entries are separated by white space or commas. A comma inside a URL separates hosts.
    """
    separator = r"[\s,]*\s[\s,]*|,+(?=[\w+.-]+://)" if "://" in text else r"[\s,]+"
    return [entry for entry in re.split(separator, text.strip(", \t\r\n")) if entry]


def refuse_several(url: str, where: str) -> None:
    """Refuse a text with several URLs. Otherwise a name in the first URL would contain the password in the second.

    Raises:
        ConfigurationError: ``://`` is in the text twice.
    """
    scheme, _, rest = url.strip().partition("?")[0].partition("://")
    if scheme.lower().startswith("sqlite"):
        rest = rest.removeprefix("/file://")  # SQLite takes a URL as well: sqlite:///file:///folder/file.db?uri=true
    if "://" in rest:
        raise ConfigurationError(
            f'`{where}` contains "://" twice. If it is several URLs, separate them by white space or commas. {_QUOTE}'
        )


def parse_url(url: str, where: str) -> ServerURL:
    """Split the URL of a server into its parts.

    Args:
        url: the URL.
        where: the name of the URL in messages, such as ``slaves[0]``.

    Raises:
        ConfigurationError: it is not a URL of a database that replswitch knows, or a part of it is wrong.
    """
    scheme, separator, _ = url.strip().partition("://")
    base, plus, driver = scheme.lower().partition("+")
    if not separator or base not in _SCHEMES or (plus and not driver):
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigurationError(
            f"`{where}` is a string, but not the URL of a database. Write mysql://user:password@host:port/database."
            f" The schemes are {known}."
        )
    engine, default = _SCHEMES[base]
    parts = _split(url.strip(), where)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    texts = dict(pairs)
    if len(texts) < len(pairs):
        raise ConfigurationError(f"`{where}` contains an option twice.")
    if engine == "postgresql" and texts.get("ssl") == "true":
        del texts["ssl"]  # libpq, too, takes this form of JDBC
        texts["sslmode"] = "require"
    refuse_several(url, where)
    if engine != "sqlite" and ("@" in parts.path or any("@" in name for name in texts)):
        raise ConfigurationError(f'`{where}` contains a "/" or "?" before the host. {_QUOTE}')
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    found = [_host_and_port(one) for one in hosts.split(",")]
    if len(found) > 1 and engine != "postgresql":
        raise ConfigurationError(
            f"`{where}` has several hosts. Only a URL of PostgreSQL can have several. Write one URL for each server."
        )
    database = unquote(parts.path[1:])
    if engine == "sqlite" and (parts.netloc or not database):
        raise ConfigurationError(
            f"`{where}` names no file. Write sqlite:///folder/file.db, or with an absolute path"
            " sqlite:////folder/file.db."
        )
    for host, _ in found:
        if not host.startswith("/") and (wrong := _NOT_IN_HOSTS.search(host)):
            raise ConfigurationError(f"The host in `{where}` contains the character {wrong[0]!r}. {_QUOTE}")
    ports = [port for _, port in found]

    def part(given: str, *names: str) -> str:
        """Return a part of the URL; if an option contains it instead, the value of the option."""
        for name in names:
            if name in texts and given:
                raise ConfigurationError(f'The option "{name}" in `{where}` repeats a part of the URL. Leave one out.')
            given = texts.pop(name, given)
        return given

    return ServerURL(
        engine=engine,
        driver=_NAMES_OF_SQLALCHEMY.get(driver, driver) if plus else default,
        names_driver=bool(plus),
        host=_host(",".join(host for host, _ in found), texts, where),
        port=_port(part(",".join(ports) if any(ports) else "", "port"), where),
        user=part(unquote(user), "user"),
        password=part(unquote(password), "password"),
        database=part(database, "dbname"),
        options={name: option(name, text, where) for name, text in texts.items()},
    )


def settings_of_url(url: str, driver: Driver, where: str) -> dict[str, Any]:
    """Return the settings of a server as its driver takes them; only those that the URL names.

    Args:
        url: the URL.
        driver: the driver that opens the connections.
        where: the name of the URL in messages.

    Raises:
        ConfigurationError: see `parse_url`; or the URL is of another kind of server than the driver's.
    """
    parts = parse_url(url, where)
    if parts.engine != driver.engine:
        raise ConfigurationError(
            f"`{where}` is a URL of {parts.engine}. The driver {driver.module.__name__} does not connect to such"
            " servers. All servers must be of one kind."
        )
    found = {
        "unix_socket" if parts.engine == "mysql" and parts.host.startswith("/") else "host": parts.host,
        "port": int(parts.port) if parts.port.isdecimal() else parts.port,
        "user": parts.user,
        "password": parts.password,
        "dbname" if parts.engine == "postgresql" else "database": parts.database,
    }
    return {**{name: value for name, value in found.items() if value != ""}, **parts.options}


def has_port(engine: str | None, host: str) -> bool:
    """Return whether the port is a part of the server's address. On PostgreSQL, the name of a socket contains it.

    Args:
        engine: the kind of server, as in `ServerURL`; None if it is not known.
        host: the host, or a Unix socket.
    """
    return not host.startswith("/") or engine != "mysql"


def _split(url: str, where: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"`{where}` is not a valid URL. {_QUOTE}") from None
    if parts.fragment:
        raise ConfigurationError(f'`{where}` contains the character "#". {_QUOTE}')
    return parts


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):  # an address of IPv6
        host, _, rest = text[1:].partition("]")
        # RFC 6874: a zone follows "%25".
        return host.replace("%25", "%"), rest[1:] if rest.startswith(":") else rest and f"]{rest}"
    host, _, port = text.partition(":")
    return unquote(host), port


def _host(given: str, texts: dict[str, str], where: str) -> str:
    """Return the host, or the Unix socket. Remove the options that contain it.

    Args:
        given: the host before the path of the URL. With a socket in an option, it may be localhost.
        texts: the options.
        where: the name of the URL in messages.
    """
    for name in ("host", "unix_socket"):
        asked = texts.pop(name, "")
        if not asked:
            continue
        is_socket = asked.startswith(("/", "@"))
        if name == "unix_socket" and not asked.startswith("/"):
            raise ConfigurationError(
                f'The option "unix_socket" in `{where}` must be the absolute path of a Unix socket.'
            )
        if given and not (is_socket and given.lower() == "localhost"):
            also = "another socket" if given.startswith(("/", "@")) else "a host that is not localhost"
            text = f"is a Unix socket, but the URL also has {also}" if is_socket else "repeats a part of the URL"
            raise ConfigurationError(f'The option "{name}" in `{where}` {text}. Leave one out.')
        given = asked
    return given


def _port(text: str, where: str) -> str:
    for port in filter(None, text.split(",")):
        if not (port.isascii() and port.isdecimal() and int(port) < 2**16):
            raise ConfigurationError(
                f"The port in `{where}` is not a number from 0 to 65535. If it is a part of the password: {_QUOTE}"
            )
    return text


def option(name: str, text: str, where: str) -> str | float | bool:
    """Convert an option of a URL to a number, a flag or a string. The name of the option decides which.

    Raises:
        ConfigurationError: the option must be a number or a flag, and is not.
    """
    if name in _OBJECTS:
        certificates = " For TLS with PyMySQL, a URL can have ssl_ca, ssl_cert and ssl_key." if name == "ssl" else ""
        raise ConfigurationError(
            f'The option "{name}" in `{where}` cannot be a text, because the driver takes an object. Write the settings'
            f" as a dictionary instead of a URL.{certificates}"
        )
    if name in _FLAGS:
        if text.lower() not in _YES | _NO:
            raise ConfigurationError(f'The option "{name}" in `{where}` must be "true" or "false".')
        return text.lower() in _YES
    if name not in _NUMBERS:
        return text
    if not _NUMBER.fullmatch(text):
        raise ConfigurationError(f'The option "{name}" in `{where}` is not a number.')
    return float(text) if "." in text else int(text)
