"""A throw-away pair of MySQL servers with GTID replication.

Comments cite pages of MySQL's manual by their NAME in https://dev.mysql.com/doc/refman/en/NAME.html.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from replswitch.testing import launch
from replswitch.testing.data_cache import cache_folder
from replswitch.testing.errors import ServerNotFoundError
from replswitch.testing.replication import MYSQL
from replswitch.testing.servers import ServerPair, as_root
from replswitch.testing.sessions import pymysql_connect

LEAN = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-buffer-size=2M",
    "--innodb-redo-log-capacity=32M",  # with the smallest, 8M, the data folder takes a second longer to make
    "--key-buffer-size=1M",
    "--performance-schema=OFF",
    "--innodb-use-native-aio=OFF",  # many servers at a time run into the limit of /proc/sys/fs/aio-max-nr
    "--mysqlx=OFF",
    "--secure-file-priv=",  # its default is a folder of the system's, without which the server does not start
)
"""Options that make a server small and quick to start."""

SURVIVES_KILL_9 = (
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--sync-relay-log=0",
    "--relay-log-recovery=ON",
)
"""With these options, each commit is passed to the operating system, without waiting for the disk. kill() ends
only the server and not the system, so it loses nothing."""

ACCOUNTS = """\
CREATE DATABASE {database};
CREATE USER {user}@'%' IDENTIFIED BY '{password}';
GRANT ALL ON {database}.* TO {user}@'%';
GRANT ALL ON `test\\_%`.* TO {user}@'%';
GRANT REPLICATION CLIENT ON *.* TO {user}@'%';
CREATE USER replication@'%' IDENTIFIED BY '{password}';
GRANT REPLICATION SLAVE ON *.* TO replication@'%';
"""
"""Any host may connect with these accounts; but the server listens on 127.0.0.1 only."""


class MySQLPair(ServerPair):
    """A MySQL master and its read-only slaves, with GTID replication. Each is a server process of its own.

    The binary log is on everywhere, so a slave can be promoted. The pair needs MySQL's ``mysqld`` (tried with 9.7).
    A MariaDB server with this name does not work. The pair need not run as root.

    The lag is a whole number of seconds. MySQL rounds the time of a transaction up to the next second
    (``SOURCE_DELAY``, replication-delayed). So a slave shows a transaction between ``lag`` and ``lag + 1``
    seconds after its commit, and never sooner.

    Args:
        slaves: how many slaves; 1 or more.
    """

    dialect = MYSQL
    accounts = ACCOUNTS

    def _program(self) -> str:
        return find_mysqld()

    def _installer(self, program: str) -> list[str]:
        return [
            program,
            "--no-defaults",
            "--initialize-insecure",  # root has no password
            *as_root(),
            *LEAN,
            *SURVIVES_KILL_9[:1],
        ]

    def _command(self, name: str, port: int) -> list[str]:
        return [
            self._program(),
            "--no-defaults",
            *self._options(name, port),
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--skip-replica-start",
            *as_root(),
            *LEAN,
            *SURVIVES_KILL_9,
        ]

    def _answers(self, name: str, port: int) -> bool:
        if not super()._answers(name, port):
            return False
        # Without TLS, PyMySQL needs the package cryptography for the first login of an account. A login over a socket
        # needs neither, and the server accepts later logins over TCP (caching-sha2-pluggable-authentication).
        pymysql_connect(unix_socket=str(self._socket(name)), user=self.user, password=self.password).close()
        return True

    def _introduce(self, name: str) -> None:
        super()._introduce(name)
        self._run(
            name,
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = %s,"
            " SOURCE_USER = 'replication', SOURCE_PASSWORD = %s, GET_SOURCE_PUBLIC_KEY = 1,"
            # By default, a slave stops trying to reach its master after 10 attempts.
            " SOURCE_AUTO_POSITION = 1, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400",
            self._ports[self.master_name],
            self.password,
        )

    def _delay(self) -> int:
        return int(self._lag)

    def _errors(self, name: str, status: dict[str, Any]) -> list[str]:
        # The status of a slave says only which worker has failed, and where to read why.
        workers = self._run(
            name, "SELECT last_error_message AS error FROM performance_schema.replication_applier_status_by_worker"
        )
        return [*super()._errors(name, status), *(row["error"] for row in workers if row["error"])]


def find_mysqld() -> str:
    """Return the path of MySQL's server: in PATH, in a folder of system programs, or in replswitch's cache.

    Raises:
        ServerNotFoundError: MySQL's server is not on this machine.
    """
    beside = [*launch.SBIN, str(cache_folder() / "mysql")]
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), *beside]:
        path = shutil.which("mysqld", path=folder)
        if path and _is_mysql(path):
            return path
    raise ServerNotFoundError(
        f"MySQL's mysqld is not on this machine (looked in PATH, {', '.join(beside)}; a mysqld of MariaDB does not"
        " work). Install MySQL's server. Debian has no package of it, but `make mysql` in a checkout of"
        " replswitch fetches one"
    )


def _is_mysql(program: str) -> bool:
    """Return whether a program is MySQL's server, and not MariaDB's, whose program can have the same name."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - a server
    return result.returncode == 0 and "MariaDB" not in result.stdout
