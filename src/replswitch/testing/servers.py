"""The base class of the pairs of MariaDB and of MySQL, whose servers speak MySQL's protocol."""

from __future__ import annotations

import os
import shutil
import socket
import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.errors import ConfigurationError
from replswitch.testing.data_cache import CachedData
from replswitch.testing.errors import PairError
from replswitch.testing.launch import run
from replswitch.testing.pair import MASTER
from replswitch.testing.replication import has_failed, not_caught_up
from replswitch.testing.sessions import SessionPair, pymysql

if TYPE_CHECKING:
    from replswitch.testing.replication import Dialect


class ServerPair(SessionPair):
    """A pair of servers that speak MySQL's protocol.

    Attributes:
        user: the application's account. It may do everything in ``database`` and in databases whose names
            begin with ``test_``, and it may query the state of replication.
        dialect: the statements of replication.
        accounts: the statements that create the accounts and the database, one in each line. Each new server runs them.
    """

    dialect: ClassVar[Dialect]
    accounts: ClassVar[str]
    port_taken = "Bind on TCP/IP port"

    def _socket(self, name: str) -> Path:
        return self._keeper.folder / f"{name}.sock"

    def _temporary(self, name: str) -> Path:
        # Each server has its own, because a server that starts removes all temporary tables in the folder.
        folder = self._keeper.folder / f"{name}.tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def _check_lag(self, seconds: float) -> None:
        super()._check_lag(seconds)
        if seconds != int(seconds):
            raise ConfigurationError(f"lag={seconds!r}: a lag of {self.dialect.product} must be in whole seconds")

    def _install(self) -> None:
        # Every server runs these statements itself, so they must not be replicated.
        sql = "SET sql_log_bin = 0;\n" + self.accounts
        self._accounts.write_text(sql.format(user=self.user, password=self.password, database=self.database))
        program = self._program()
        command, data = self._installer(program), self._data(MASTER)
        cached = CachedData(command, [program, command[0]])
        if not cached.copy_to(data):
            folders = [f"--datadir={data}", f"--tmpdir={self._temporary(MASTER)}"]
            run(self._keeper, Path(command[0]).name, [*command, *folders], self._keeper.folder / "install.log")
            # The file has the UUID of a MySQL server, which must be unique. Without it, each server makes a new one.
            (data / "auto.cnf").unlink(missing_ok=True)
            cached.keep(data)

    @property
    def _accounts(self) -> Path:
        return self._keeper.folder / "accounts.sql"

    def _copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target)

    def _introduce(self, name: str) -> None:
        if name in self._follows:
            self._run(name, self.dialect.forget)

    def _answers(self, name: str, port: int) -> bool:
        """Return whether root can log in. The socket in its folder cannot belong to another server."""
        # First try without PyMySQL, which leaves a socket unclosed if no server listens (seen with 1.2.4).
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self._socket(name))):
                return False
        try:
            self.admin(name).close()
        except pymysql().OperationalError:
            return False
        return True

    def _kill_server(self, name: str) -> None:
        super()._kill_server(name)
        # A kill can damage the files of replication, and the server then refuses to use them (error 1201). The position
        # is in a table, which survives. So when a slave starts again, its master is set again.
        if self._follows.get(name) is not None:
            self._follows[name] = None

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
            deadline += 1  # because a delay is counted in whole seconds
        while position:
            # Wait in slices, because a slave that waits does not notice that replication has ended with an error. Never
            # wait 0 seconds, which means no time-out on MySQL.
            wait = min(0.5, max(0.01, deadline - time.monotonic()))
            if not self._run(name, self.dialect.wait, position, wait)[0]["failed"]:
                return
            status = self._run(name, self.dialect.status)[0]
            if has_failed(self.dialect, status) or time.monotonic() >= deadline:
                reached = self._run(name, self.dialect.reached)[0]["position"]
                raise not_caught_up(self.dialect, name, (position, reached), status, self._errors(name, status))

    def _wait_connected(self, name: str, deadline: float) -> None:
        running = f"{self.dialect.role}_IO_Running"
        is_restarted = False
        while (status := self._run(name, self.dialect.status)[0])[running] != "Yes":
            if time.monotonic() >= deadline:
                errors = "".join(f" {error}" for error in self._errors(name, status))
                raise PairError(f"{name} is not connected to its master.{errors}")
            if status["Last_IO_Errno"] and not is_restarted:  # or it sleeps for a second before it tries again
                self._stop_replication(name)
                self._start_replication(name)
                is_restarted = True
            time.sleep(0.002)

    def _errors(self, name: str, status: dict[str, Any]) -> list[str]:
        """Return the errors of a slave's replication as text."""
        return [status[kind] for kind in ("Last_IO_Error", "Last_SQL_Error") if status[kind]]

    def _hand_over(self, old: str, new: str, timeout: float) -> None:
        """Close the old master for writes. Once the new one has all writes, open the new one for writes."""
        self._run(old, "SET GLOBAL read_only = ON")  # waits for the commits that are on their way
        is_held_back = bool(self._lag) or new in self._stopped
        try:
            if is_held_back:
                self._stop_replication(new)
                self._run(new, self.dialect.delay, 0)
                self._start_replication(new)
            self._wait_for(new, self._master_position(), time.monotonic() + timeout)
        except PairError:
            self._run(old, "SET GLOBAL read_only = OFF")
            if is_held_back:
                self._set_lag(new)
            raise
        self._stop_replication(new)
        self._run(new, self.dialect.forget)
        self._run(new, "SET GLOBAL read_only = OFF")
        self._follows[new] = None

    def _options(self, name: str, port: int) -> list[str]:
        """Return the options of a server that both products know."""
        is_new = name not in self._ports
        return [
            *([f"--init-file={self._accounts}"] if is_new else []),
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
    def _program(self) -> str:
        """Return the path of the server's program."""

    @abstractmethod
    def _installer(self, program: str) -> list[str]:
        """Return the command that makes a data folder, without the options that name folders."""

    @abstractmethod
    def _delay(self) -> int:
        """Return the delay to set on a slave, in seconds, so that no transaction is visible before the lag is over."""


def as_root() -> list[str]:
    """Return the option without which a server refuses to run as root; an empty list for another user."""
    return ["--user=root"] if os.geteuid() == 0 else []
