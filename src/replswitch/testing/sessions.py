"""Sessions of the application and of root on the servers of a pair, and what root can read about a server.

The pair administers a server through its Unix socket, as root without a password. Only the owner of the folder can use
this socket. The application's account connects over TCP, on 127.0.0.1.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError
from replswitch.testing.processes import imported, is_readable
from replswitch.testing.promotion import PromotablePair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pymysql.connections import Connection

OURS = ("root[", "replication[", "[", "skip-grants user[")
"""How ``user_host`` in the general log begins for connections that are not the application's. These are the pair's
own, and those of the threads that replicate."""


class SessionPair(PromotablePair):
    """A pair of servers that PyMySQL connects to."""

    driver: ClassVar[str] = "pymysql"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self._idle: dict[str, list[Connection[Any]]] = {}  # the pair's own sessions, by the name of the server

    def connect(self, name: str | None = None) -> Connection[Any]:
        """Return a PyMySQL connection to one server, with the application's account and autocommit on.

        Args:
            name: which server; None is the master.
        """
        return pymysql_connect(**self._parameters(self._known(name or self.master_name)))

    def admin(self, name: str | None = None) -> Connection[Any]:
        """Return a PyMySQL connection of root, which may do everything, to one server, with autocommit on.

        ``read_only`` does not refuse its writes. A write to a slave may conflict with later writes from the
        master.

        Args:
            name: which server; None is the master.
        """
        return pymysql_connect(unix_socket=str(self._socket(self._known(name or self.master_name))), user="root")

    def status(self, name: str, variable: str) -> int:
        """Return one of a server's counters (``SHOW GLOBAL STATUS``).

        Args:
            name: which server.
            variable: for instance ``Com_select`` or ``Questions``. The statements of this method itself are counted
                as ``Questions``, but not as ``Com_select``.

        Raises:
            ConfigurationError: the server has no such counter.
        """
        rows = self._run(self._known(name), "SHOW GLOBAL STATUS WHERE Variable_name = %s", variable)
        if not rows or not rows[0]["Value"].isdecimal():
            raise ConfigurationError(f"{variable!r} is not a counter in SHOW GLOBAL STATUS of the {name}")
        return int(rows[0]["Value"])

    @contextmanager
    def statements(self, name: str) -> Iterator[list[str]]:
        """Record the statements that a server receives from the application while the block runs.

        Args:
            name: which server.

        Yields:
            A list that is filled, in the order of arrival, when the block is left.

        Raises:
            PairError: the server's statements are being recorded already.
        """
        self._known(name)
        if self._run(name, "SELECT @@GLOBAL.general_log AS recording")[0]["recording"]:
            raise PairError(f"the statements of the {name} are being recorded already")
        self._run(name, "TRUNCATE mysql.general_log")
        self._run(name, "SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON")
        received: list[str] = []
        try:
            yield received
        finally:
            self._run(name, "SET GLOBAL general_log = OFF")
            received += [
                row["statement"]
                for row in self._run(
                    name,
                    "SELECT user_host, command_type, CONVERT(argument USING utf8mb4) AS statement"
                    " FROM mysql.general_log",
                )
                if row["command_type"] in {"Query", "Execute"} and not row["user_host"].startswith(OURS)
            ]

    def _run(self, name: str, sql: str, *values: object) -> list[dict[str, Any]]:
        """Run one statement as root, outside the server's binary log, and return its rows.

        Raises:
            PairError: the server cannot be reached or refuses; the driver's error is the cause.
        """
        try:
            with self._session(name) as session, session.cursor(pymysql().cursors.DictCursor) as cursor:
                cursor.execute(sql, values or None)
                return list(cursor.fetchall())
        except pymysql().MySQLError as error:
            raise PairError(f"the {name} failed at {sql!r}: {error}") from error

    @contextmanager
    def _session(self, name: str) -> Iterator[Connection[Any]]:
        """Lend a session of the pair's own. It stays open, because opening one takes longer than most statements."""
        idle = self._idle.setdefault(name, []) if os.getpid() == self._owner else []
        session = None
        with suppress(IndexError):
            session = idle.pop()
        if session is not None and is_readable(session._sock.fileno()):  # type: ignore[attr-defined]  # the stubs lack it
            session.close()
            session = None
        if session is None:
            session = self.admin(name)
            with session.cursor() as cursor:
                cursor.execute("SET sql_log_bin = 0")
        try:
            yield session
        except BaseException:
            session.close()
            raise
        if os.getpid() == self._owner and self._started:
            idle.append(session)
        else:
            session.close()

    def _remove(self) -> None:
        for idle in self._idle.values():
            while idle:
                with suppress(pymysql().MySQLError):
                    idle.pop().close()
        super()._remove()

    @abstractmethod
    def _socket(self, name: str) -> Path:
        """Return the server's Unix socket."""


def pymysql() -> Any:
    """Import PyMySQL and return it. It is imported when it is needed, and not when pytest loads the plugin."""
    return imported("pymysql", "mysql")


def pymysql_connect(**parameters: Any) -> Connection[Any]:
    """Return a PyMySQL connection with autocommit on, and without TLS.

    With the system's certificates, which PyMySQL loads otherwise, a connection takes 30 ms instead of 1.
    """
    connection: Connection[Any] = pymysql().connect(**parameters, autocommit=True, ssl_disabled=True)
    return connection
