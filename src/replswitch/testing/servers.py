"""Pairs of real servers that speak MySQL's protocol: the base class for MariaDB and MySQL.

The server processes and their data belong to a :class:`replswitch.testing.kept.Kept`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError, ServerStartError
from replswitch.testing.kept import Kept
from replswitch.testing.launch import WITHIN, free_port, run
from replswitch.testing.pair import MASTER
from replswitch.testing.promotion import PromotablePair
from replswitch.testing.replication import has_failed, not_caught_up
from replswitch.testing.sessions import pymysql

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

PORT_TAKEN = "Bind on TCP/IP port"
"""The text in the log of a server that ends because another process has its port."""


class ServerPair(PromotablePair):
    """A pair of server processes on free ports of 127.0.0.1.

    Attributes:
        user: the application's account. It may do everything in ``database`` and in databases whose names
            begin with ``test_``, and it may query the state of replication.
        password: its password, a new one each time the pair is started.
        database: the application's database.
    """

    user = "shop"
    database = "shop"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self.password = ""
        self._kept: Kept | None = None
        self._ports: dict[str, int] = {}

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
        """The keeper of the processes and the folder."""
        if self._kept is None:
            raise PairError("the pair is closed")
        return self._kept

    def _socket(self, name: str) -> Path:
        return self._keeper.folder / f"{name}.sock"

    def _data(self, name: str) -> Path:
        return self._keeper.folder / name

    def _temporary(self, name: str) -> Path:
        # Each server has its own: when a server starts, it removes all temporary tables that it finds in the folder.
        folder = self._keeper.folder / f"{name}.tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def _check_lag(self, seconds: float) -> None:
        super()._check_lag(seconds)
        if seconds != int(seconds):
            raise ConfigurationError(f"lag={seconds!r}: {self.dialect.product} lags by whole seconds")

    def _create(self) -> None:
        began = time.monotonic()
        self._ports.clear()
        self._follows.clear()
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
        self._follow(name)
        logger.debug("%s up on port %d in %.2f s", name, self._ports[name], time.monotonic() - began)

    def _start_on_free_port(self, name: str) -> None:
        """Start a server on a free port, or on another one if a process took it first."""
        while name not in self._ports:
            port = free_port()
            try:
                self._start_on(name, port, deadline=0)
            except ServerStartError as error:
                if PORT_TAKEN not in error.log:
                    raise
                logger.info("another process took port %d just before the %s", port, name)
            else:
                self._ports[name] = port

    def _start_on(self, name: str, port: int, deadline: float) -> None:
        """Start a server on this port. If another process has the port, wait for it until the deadline."""
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
        """Return whether root can log in, through the socket in the server's own folder."""
        # First without PyMySQL, which leaves a socket unclosed if no server listens (seen with 1.2.4).
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self._socket(name))):
                return False
        try:
            self.admin(name).close()
        except pymysql().OperationalError:
            return False
        return True

    def _set_lag(self, name: str) -> None:
        # The manuals require that the threads are stopped. With GTIDs, the slave fetches again what it still needs.
        self._stop_replication(name)
        self._run(name, self.dialect.delay, self._delay())
        if name not in self._stopped:
            self._start_replication(name)

    def _stop_replication(self, name: str) -> None:
        self._run(name, self.dialect.stop)

    def _start_replication(self, name: str) -> None:
        self._run(name, self.dialect.start)

    def _master_position(self) -> str:
        return str(self._run(self.master_name, self.dialect.position)[0]["position"])

    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        if self._lag:
            deadline += 1  # for the whole seconds in which a delay is counted
        while position:
            # In slices: a slave that waits does not notice that replication has ended with an error. Never 0, which
            # means no time-out on MySQL.
            wait = min(0.5, max(0.01, deadline - time.monotonic()))
            if not self._run(name, self.dialect.wait, position, wait)[0]["failed"]:
                return
            status = self._run(name, self.dialect.status)[0]
            if has_failed(self.dialect, status) or time.monotonic() >= deadline:
                reached = self._run(name, self.dialect.reached)[0]["position"]
                raise not_caught_up(self.dialect, name, (position, reached), status, self._errors(name, status))

    def _errors(self, name: str, status: dict[str, Any]) -> list[str]:
        """Return the errors of a slave's replication as text."""
        return [status[kind] for kind in ("Last_IO_Error", "Last_SQL_Error") if status[kind]]

    def _options(self, name: str, port: int) -> list[str]:
        """Return the options of a server that both products know."""
        return [
            f"--datadir={self._data(name)}",
            f"--tmpdir={self._temporary(name)}",
            f"--socket={self._socket(name)}",
            f"--pid-file={self._keeper.folder / name}.pid",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            f"--server-id={self.names.index(name) + 1}",
            "--skip-name-resolve",
            "--log-bin=binlog",
            "--relay-log=relaylog",
            f"--read-only={'OFF' if name == self.master_name else 'ON'}",
        ]

    @abstractmethod
    def _install(self) -> None:
        """Make the data folder of the master, with the accounts and the database; slaves get a copy."""

    @abstractmethod
    def _command(self, name: str, port: int) -> list[str]:
        """Return the command that starts a server, without replication."""

    @abstractmethod
    def _delay(self) -> int:
        """Return the delay to set on a slave, in seconds, so that no transaction is visible before the lag is over."""


def as_root() -> list[str]:
    """Return the option without which a server refuses to run as root."""
    return ["--user=root"] if os.geteuid() == 0 else []
