"""A throw-away pair of MariaDB servers with GTID replication.

Where a rule comes from MariaDB's manual, the page is named as in https://mariadb.com/kb/en/NAME/.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import NotCaughtUpError, PairError
from replswitch.testing.launch import find_program, run
from replswitch.testing.pair import MASTER
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "mariadb-server"

LEAN = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-buffer-size=2M",
    "--loose-innodb-log-file-size=4M",
    "--aria-log-file-size=8M",
    "--aria-pagecache-buffer-size=4M",
    "--key-buffer-size=1M",
    "--performance-schema=OFF",
    "--innodb-use-native-aio=OFF",  # many servers at a time run into the limit of /proc/sys/fs/aio-max-nr
)
"""Small and quick to start."""

SURVIVES_KILL_9 = (
    "--loose-innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--sync-master-info=0",
    "--sync-relay-log=0",
    "--sync-relay-log-info=0",
)
"""Each commit is handed to the operating system, which nobody kills, but not waited for until it is on the
disk. So kill() loses nothing."""

ACCOUNTS = """\
DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';
FLUSH PRIVILEGES;
CREATE DATABASE {database};
CREATE USER {user}@'%' IDENTIFIED BY '{password}';
GRANT ALL ON {database}.* TO {user}@'%';
GRANT ALL ON `test\\_%`.* TO {user}@'%';
GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO {user}@'%';
CREATE USER replication@'%' IDENTIFIED BY '{password}';
GRANT REPLICATION SLAVE ON *.* TO replication@'%';
"""
"""Every server begins with these, so none of it is in a binary log. The server listens on 127.0.0.1 alone."""

OURS = ("root[", "replication[", "[")
"""How ``user_host`` in the general log begins for connections that are not the application's: the pair's own,
and the threads that replicate."""


class MariaDBPair(ServerPair):
    """A MariaDB master and its slaves, each a server process of its own; GTID replication, slaves read-only.

    The binary log is on everywhere, so a slave can be promoted. Needs ``mariadbd`` and
    ``mariadb-install-db`` (Debian: ``apt-get install mariadb-server``); not root.

    The lag is a whole number of seconds. MariaDB cuts the fraction off the time of a transaction
    (``MASTER_DELAY``, kb: delayed-replication), so a transaction is seen between ``lag`` and ``lag + 1``
    seconds after its commit; never sooner.

    Args:
        slaves: how many slaves; 1 or more.
    """

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
                row["argument"]
                for row in self._run(name, "SELECT * FROM mysql.general_log")
                if row["command_type"] in {"Query", "Execute"} and not row["user_host"].startswith(OURS)
            ]

    def _check_lag(self, seconds: float) -> None:
        super()._check_lag(seconds)
        if seconds != int(seconds):
            raise ConfigurationError(f"lag={seconds!r}: MariaDB lags by whole seconds (MASTER_DELAY)")

    def _install(self) -> None:
        folder = self._keeper.folder
        accounts = folder / "accounts.sql"
        accounts.write_text(ACCOUNTS.format(user=self.user, password=self.password, database=self.database))
        argv = [
            find_program("mariadb-install-db", PACKAGE),
            "--no-defaults",
            f"--datadir={self._data(MASTER)}",
            f"--tmpdir={self._temporary(MASTER)}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--cross-bootstrap",  # no account for this machine's host name, which then need not resolve
            f"--extra-file={accounts}",
            *_as_root(),
            *_charset(),
            *LEAN,
            *SURVIVES_KILL_9[:1],
        ]
        run(self._keeper, "mariadb-install-db", argv, folder / "install.log")

    def _command(self, name: str, port: int) -> list[str]:
        return [
            find_program("mariadbd", PACKAGE),
            "--no-defaults",
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
            "--log-slave-updates",
            "--binlog-format=ROW",
            "--gtid-strict-mode=ON",
            "--skip-slave-start",
            f"--read-only={'OFF' if name == MASTER else 'ON'}",
            *_as_root(),
            *_charset(),
            *LEAN,
            *SURVIVES_KILL_9,
        ]

    def _temporary(self, name: str) -> Path:
        # Each its own: a server that starts removes what looks like temporary tables, in use by another or not.
        folder = self._keeper.folder / f"{name}.tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def _introduce(self, name: str) -> None:
        if name != MASTER:
            self._run(
                name,
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = %s, MASTER_USER = 'replication',"
                " MASTER_PASSWORD = %s, MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
                self._ports[MASTER],
                self.password,
            )

    def _set_lag(self, name: str) -> None:
        # The manual demands that both threads be stopped; with GTIDs what was fetched is fetched again.
        self._stop_replication(name)
        # One second more than the lag, for the fraction that is cut off the time of a transaction.
        self._run(name, "CHANGE MASTER TO MASTER_DELAY = %s", int(self._lag) + 1 if self._lag else 0)
        if name not in self._stopped:
            self._start_replication(name)

    def _stop_replication(self, name: str) -> None:
        self._run(name, "STOP SLAVE")

    def _start_replication(self, name: str) -> None:
        self._run(name, "START SLAVE")

    def _master_position(self) -> str:
        return str(self._run(MASTER, "SELECT @@GLOBAL.gtid_binlog_pos AS position")[0]["position"])

    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        if self._lag:
            deadline += 1
        while position:
            # In slices: MASTER_GTID_WAIT does not notice that replication has ended with an error.
            wait = min(0.5, max(0.0, deadline - time.monotonic()))
            waited = self._run(name, "SELECT MASTER_GTID_WAIT(%s, %s) AS failed", position, wait)
            if not waited[0]["failed"]:
                return
            status = self._run(name, "SHOW SLAVE STATUS")[0]
            if _has_failed(status) or time.monotonic() >= deadline:
                reached = self._run(name, "SELECT @@GLOBAL.gtid_slave_pos AS position")[0]["position"]
                raise _not_caught_up(name, position, reached, status)


def _has_failed(status: dict[str, Any]) -> bool:
    """Tell whether a thread of a slave ended with an error; one that only looks for its master has not."""
    return any(status[f"Slave_{kind}_Running"] == "No" and status[f"Last_{kind}_Errno"] for kind in ("IO", "SQL"))


def _not_caught_up(name: str, position: str, reached: str, status: dict[str, Any]) -> NotCaughtUpError:
    """Return the error that says what a slave lacks, and why."""
    errors = [f" {kind}: {status[kind]}." for kind in ("Last_IO_Error", "Last_SQL_Error") if status[kind]]
    return NotCaughtUpError(
        f"{name} has not caught up: the master is at GTID {position}, {name} at {reached or 'none'}"
        f" (Slave_IO_Running: {status['Slave_IO_Running']}, Slave_SQL_Running: {status['Slave_SQL_Running']},"
        f" SQL_Delay: {status['SQL_Delay']} s).{''.join(errors)}",
        server=name,
    )


def _as_root() -> list[str]:
    """Return the option without which a server refuses to run as root."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _charset() -> list[str]:
    return ["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"]
