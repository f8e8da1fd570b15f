"""Pairs of real servers that speak MySQL's protocol: what MariaDB and MySQL have in common.

The server processes and their data live in a :class:`replswitch.testing.kept.Kept`. A server is looked after
through its Unix socket, as root without a password; only the owner of the folder can reach that. The
application's account comes through TCP on 127.0.0.1.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import socket
import time
from abc import abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError, ServerStartError
from replswitch.testing.kept import Kept
from replswitch.testing.launch import WITHIN, free_port, run
from replswitch.testing.pair import MASTER, ReplicatedPair

if TYPE_CHECKING:
    from pathlib import Path

    from pymysql.connections import Connection

logger = logging.getLogger(__name__)

PORT_TAKEN = "Bind on TCP/IP port"
"""What a server writes to its log before it ends because another process has its port."""


class ServerPair(ReplicatedPair):
    """A pair of server processes on free ports of 127.0.0.1.

    Attributes:
        user: the application's account. It may do everything in ``database`` and in databases whose names
            begin with ``test_``, and it may look at the state of replication.
        password: its password, a new one each time the pair is started.
        database: the application's database.
    """

    driver: ClassVar[str] = "pymysql"
    user = "shop"
    database = "shop"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self.password = ""
        self._kept: Kept | None = None
        self._ports: dict[str, int] = {}

    def connect(self, name: str = MASTER) -> Connection[Any]:
        """Return a PyMySQL connection to one server, with the application's account and autocommit on."""
        return _pymysql_connect(**self._parameters(self._known(name)))

    def admin(self, name: str = MASTER) -> Connection[Any]:
        """Return a PyMySQL connection to one server that may do everything, with autocommit on.

        What it writes to a slave is not held back by ``read_only`` and sooner or later collides with what
        comes from the master.
        """
        return _pymysql_connect(unix_socket=str(self._socket(self._known(name))), user="root")

    def status(self, name: str, variable: str) -> int:
        """Return one of a server's counters (``SHOW GLOBAL STATUS``).

        Args:
            name: which server.
            variable: for instance ``Com_select`` or ``Questions``. The connection that asks is counted too
                (some ``Questions``, but no ``Com_select``).

        Raises:
            ConfigurationError: the server has no such counter.
        """
        rows = self._run(self._known(name), "SHOW GLOBAL STATUS WHERE Variable_name = %s", variable)
        if not rows or not rows[0]["Value"].isdecimal():
            raise ConfigurationError(f"{variable!r} is no counter in SHOW GLOBAL STATUS of the {name}")
        return int(rows[0]["Value"])

    def _run(self, name: str, sql: str, *values: object) -> list[dict[str, Any]]:
        """Run one statement as root, kept out of the server's binary log, and return its rows.

        Raises:
            PairError: the server cannot be reached or refuses; the driver's error is the cause.
        """
        try:
            with closing(self.admin(name)) as connection, connection.cursor(_pymysql().cursors.DictCursor) as cursor:
                cursor.execute("SET sql_log_bin = 0")
                cursor.execute(sql, values or None)
                return list(cursor.fetchall())
        except _pymysql().MySQLError as error:
            raise PairError(f"the {name} failed at {sql!r}: {error}") from error

    def _parameters(self, name: str) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self._ports[name],
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }

    @property
    def _keeper(self) -> Kept:
        """What keeps the processes and the folder."""
        if self._kept is None:
            raise PairError("the pair is closed")
        return self._kept

    def _socket(self, name: str) -> Path:
        return self._keeper.folder / f"{name}.sock"

    def _data(self, name: str) -> Path:
        return self._keeper.folder / name

    def _create(self) -> None:
        began = time.monotonic()
        self._ports.clear()
        self.password = secrets.token_hex(8)
        self._kept = Kept()
        self._install()
        for name in self.slave_names:
            shutil.copytree(self._data(MASTER), self._data(name))
        logger.debug("data of %d servers made in %.2f s", len(self.names), time.monotonic() - began)

    def _remove(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _is_up(self, name: str) -> bool:
        return name in self._ports and self._keeper.exit_code(name) is None

    def _kill_server(self, name: str) -> None:
        self._keeper.kill(name)
        logger.debug("%s killed", name)

    def _start_server(self, name: str) -> None:
        began = time.monotonic()
        if name in self._ports:
            self._start_on(name, self._ports[name], began + WITHIN)
        else:
            self._start_on_free_port(name)
            self._introduce(name)
        logger.debug("%s up on port %d in %.2f s", name, self._ports[name], time.monotonic() - began)

    def _start_on_free_port(self, name: str) -> None:
        """Start a server on a free port; on another one when somebody else was faster."""
        while name not in self._ports:
            port = free_port()
            try:
                self._start_on(name, port, deadline=0)
            except ServerStartError as error:
                if PORT_TAKEN not in error.log:
                    raise
                logger.info("port %d was taken just before the %s had it", port, name)
            else:
                self._ports[name] = port

    def _start_on(self, name: str, port: int, deadline: float) -> None:
        """Start a server on this port; until the deadline, wait for whoever has the port in the meantime."""
        log = self._keeper.folder / f"{name}.log"
        while True:
            try:
                run(self._keeper, name, self._command(name, port), log, ready=lambda: self._answers(name))
            except ServerStartError as error:
                if PORT_TAKEN not in error.log or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _answers(self, name: str) -> bool:
        """Tell whether the server lets root in. Its own socket cannot be mistaken for another server's."""
        # First without PyMySQL, which leaves a socket unclosed when nobody listens (seen with 1.2.4).
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self._socket(name))):
                return False
        try:
            self.admin(name).close()
        except _pymysql().OperationalError:
            return False
        return True

    @abstractmethod
    def _install(self) -> None:
        """Make the data folder of the master, with the accounts and the database; slaves get a copy."""

    @abstractmethod
    def _command(self, name: str, port: int) -> list[str]:
        """Return the command that starts a server, without replication."""

    @abstractmethod
    def _introduce(self, name: str) -> None:
        """Tell a server, once, what is not in its data folder yet (a slave: who its master is)."""


def _pymysql() -> Any:
    """Import PyMySQL when it is needed, not when pytest loads the plugin."""
    try:
        import pymysql  # noqa: PLC0415 - see above
    except ImportError as error:
        raise PairError("PyMySQL is not installed: pip install 'replswitch[mysql]'") from error
    return pymysql


def _pymysql_connect(**parameters: Any) -> Connection[Any]:
    # With the system's certificates, which PyMySQL loads otherwise, a connection takes 30 ms instead of 1.
    connection: Connection[Any] = _pymysql().connect(**parameters, autocommit=True, ssl_disabled=True)
    return connection
