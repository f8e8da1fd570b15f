"""A throw-away pair of MariaDB servers with GTID replication.

Comments cite pages of MariaDB's manual by their NAME in https://mariadb.com/kb/en/NAME/.
"""

from __future__ import annotations

from replswitch.testing.launch import find_program
from replswitch.testing.replication import MARIADB
from replswitch.testing.servers import ServerPair, as_root

PACKAGE = "mariadb-server-core mariadb-client-core"

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
"""Options that make a server small and quick to start."""

SURVIVES_KILL_9 = (
    "--loose-innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--sync-master-info=0",
    "--sync-relay-log=0",
    "--sync-relay-log-info=0",
)
"""With these options, each commit is passed to the operating system, without waiting for the disk. kill() ends
only the server and not the system, so it loses nothing."""

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
"""Any host may connect with these accounts; but the server listens on 127.0.0.1 only."""


class MariaDBPair(ServerPair):
    """A MariaDB master and its read-only slaves, with GTID replication. Each is a server process of its own.

    The binary log is on everywhere, so a slave can be promoted. The pair needs ``mariadbd`` and ``mariadb-install-db``
    (on Debian, ``apt-get install mariadb-server-core mariadb-client-core``). It need not run as root.

    The lag is a whole number of seconds. MariaDB cuts the fraction off the time of a transaction
    (``MASTER_DELAY``, kb: delayed-replication). So a slave shows a transaction between ``lag`` and
    ``lag + 1`` seconds after its commit, and never sooner.

    Args:
        slaves: how many slaves; 1 or more.
    """

    dialect = MARIADB
    accounts = ACCOUNTS

    def _program(self) -> str:
        return find_program("mariadbd", PACKAGE)

    def _installer(self, program: str) -> list[str]:
        return [
            find_program("mariadb-install-db", PACKAGE),
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--cross-bootstrap",  # no account for this machine's host name, because the name may not resolve
            *as_root(),
            *_charset(),
            *LEAN,
            *SURVIVES_KILL_9[:1],
        ]

    def _command(self, name: str, port: int) -> list[str]:
        return [
            self._program(),
            "--no-defaults",
            *self._options(name, port),
            "--log-slave-updates",
            "--binlog-format=ROW",
            "--gtid-strict-mode=ON",
            "--skip-slave-start",
            *as_root(),
            *_charset(),
            *LEAN,
            *SURVIVES_KILL_9,
        ]

    def _introduce(self, name: str) -> None:
        super()._introduce(name)
        if name in self._follows:
            # Without this, it would apply again what it has written itself as the master.
            self._run(name, "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos")
        self._run(
            name,
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = %s, MASTER_USER = 'replication',"
            " MASTER_PASSWORD = %s, MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
            self._ports[self.master_name],
            self.password,
        )

    def _delay(self) -> int:
        # One second more than the lag, for the fraction that is cut off the time of a transaction.
        return int(self._lag) + 1 if self._lag else 0


def _charset() -> list[str]:
    return ["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"]
