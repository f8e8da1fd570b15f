"""The differences between the database products on which the same application runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from replswitch.testing import MariaDBPair, MySQLPair, PostgreSQLPair

if TYPE_CHECKING:
    from replswitch.testing.pair import ReplicatedPair


@dataclass(frozen=True, slots=True)
class Product:
    """A database product.

    Attributes:
        pair: the class of its pairs.
        drivers: of `replswitch.connect`; the first one is the default.
        dialect: of SQLAlchemy, with the default driver.
        server: an expression for a number that differs between the servers of a pair.
        version: an expression for the version of the server.
        key: the type of a key that the server generates.
        connections: a query for the number of connections of the application.
        schema: the prefix of the name of a table in statements of the administrator.
        received: a query for the place in the master's log, as a number, that a slave has received; or empty.
        connect_timeout: the shortest time-out in seconds for a new connection that its drivers support.
    """

    pair: type[ReplicatedPair]
    drivers: tuple[str, ...]
    dialect: str
    server: str
    version: str
    key: str
    connections: str
    schema: str
    received: str
    connect_timeout: int


_MYSQL: Final = (
    ("pymysql", "mysqlclient"),
    "mysql+pymysql",
    "@@server_id",
    "VERSION()",
    "BIGINT AUTO_INCREMENT PRIMARY KEY",
    "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'shop'",
    "shop.",
    "",
    1,
)

PRODUCTS: Final = {
    "MariaDB": Product(MariaDBPair, *_MYSQL),
    "MySQL": Product(MySQLPair, *_MYSQL),
    "PostgreSQL": Product(
        PostgreSQLPair,
        ("psycopg",),
        "postgresql+psycopg",
        "inet_server_port()",
        "current_setting('server_version')",
        "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = 'shop'",
        "",
        "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'",
        2,  # libpq raises 1 to 2
    ),
}
