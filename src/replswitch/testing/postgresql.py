"""A throw-away pair of PostgreSQL servers with streaming replication.

Comments cite pages of PostgreSQL's manual by their NAME in https://www.postgresql.org/docs/current/NAME.html.
"""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replswitch.testing.errors import NotCaughtUpError, PairError, ServerStartError
from replswitch.testing.kept import Kept
from replswitch.testing.launch import WITHIN, run
from replswitch.testing.pair import MASTER
from replswitch.testing.postgresql_programs import SCRAM_ITERATIONS, account, check_reachable, template
from replswitch.testing.postgresql_sessions import PostgreSQLSessions, psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
shared_buffers = 16MB
dynamic_shared_memory_type = mmap  # in the data folder, which is removed
min_wal_size = 32MB
max_wal_size = 256MB
wal_keep_size = 1GB  # what a slave still needs that was stopped or killed
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms  # a master that comes back is found soon
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_min_messages = warning
log_line_prefix = '%m [%p] <%u> '
# Each commit is passed to the operating system, without waiting for the disk. Only the server is killed, so kill()
# loses nothing.
fsync = off
include = '{replication}'
"""
"""Settings of a small server that starts quickly. They follow those of ``initdb``, because the last value applies."""

QUICK_PASSWORDS = "scram_iterations = 100\n"
"""A setting of PostgreSQL 16. With its default of 4096, client and server calculate for milliseconds at each login."""

ACCESS = """\
local all postgres trust
host all all 127.0.0.1/32 scram-sha-256
host replication replication 127.0.0.1/32 scram-sha-256
"""
"""Only the owner of the folder can reach the socket (auth-pg-hba-conf)."""

ACCOUNTS = """\
CREATE ROLE {user} LOGIN CREATEDB PASSWORD '{password}';
GRANT pg_monitor TO {user};
CREATE ROLE replication LOGIN REPLICATION PASSWORD '{password}';
CREATE DATABASE {database} OWNER {user};
"""
"""A line for each statement, for the server's single-user mode (app-postgres)."""

PAUSED = """\
SELECT pg_get_wal_replay_pause_state() = 'paused' OR EXISTS (
    SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
    AND (wait_event ~ '^Recovery(ApplyDelay|Conflict)' OR wait_event_type IN ('Lock', 'BufferPin'))
) AS paused
"""
"""A query that returns true if a slave applies nothing: it is paused, or waits for a delay or a session that reads."""

FOREVER = 2**31 - 1
"""The longest delay in milliseconds: 24 days."""


class PostgreSQLPair(PostgreSQLSessions):
    """A PostgreSQL master and its slaves (hot standbys), with streaming replication. Each is a process of its own.

    The pair needs psycopg 3, and the programs of PostgreSQL 14 or newer (tested with 18). The programs may be from the
    extra ``postgresql-server``, in the PATH, or where Linux distributions install them. If you are root, the servers
    run under the account ``postgres``, or under ``nobody`` if there is no such account.

    The lag may have a fraction, to the millisecond. It delays commits (``recovery_min_apply_delay``,
    runtime-config-replication). What a transaction has locked on the slave before its commit stays locked during the
    lag. So while a slave lags, a table that an ``ALTER TABLE`` or ``TRUNCATE`` changes cannot be read there.

    Args:
        slaves: how many slaves; 1 or more.

    Attributes:
        user: the application's account. It owns ``database``, may create other databases, and may query the state of
            replication (``pg_monitor``).
    """

    port_taken = "could not create any TCP/IP sockets"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self._account = account()
        self._programs = Path()
        self._edition = 0  # the number of the settings that were written last
        self._applied: dict[str, str] = {}  # the settings by which a slave replicates at the moment

    def promote(self, name: str = "slave", timeout: float = 10) -> None:
        """Promote a slave to master. The old master and the other slaves then replicate from it. See the base class."""
        with self._exclusively():
            old = self.master_name
            super().promote(name, timeout)
            self.start(old)

    # Processes

    def _keep(self) -> Kept:
        kept = Kept(self._account)
        try:
            check_reachable(kept.folder, self._account)
        except PairError:
            kept.close()
            raise
        return kept

    def _install(self) -> None:
        self._recorded.clear()
        self._applied.clear()
        psycopg()
        made = template(self._account)
        self._programs = made.programs.folder
        data = self._data(MASTER)
        self._copy(made.data, data)
        accounts = self._keeper.folder / "accounts.sql"
        self._write(accounts, ACCOUNTS.format(user=self.user, password=self.password, database=self.database))
        self._write(data / "pg_hba.conf", ACCESS)
        settings = SETTINGS.format(folder=self._keeper.folder, replication="replication.conf")
        if made.programs.version >= SCRAM_ITERATIONS:
            settings += QUICK_PASSWORDS
        self._write(data / "postgresql.conf", (made.data / "postgresql.conf").read_text() + settings)
        self._configure(MASTER)
        alone = [str(self._programs / "postgres"), "--single", "-D", str(data), "postgres"]
        self._finish("postgres --single", ["sh", "-c", '"$@" <"$0"', str(accounts), *alone])

    def _copy(self, source: Path, target: Path) -> None:
        self._finish("cp", ["cp", "-R", str(source), str(target)])  # under the account, which then owns the copy

    def _finish(self, name: str, argv: list[str]) -> None:
        """Run a program to its end, under the account of the servers."""
        run(self._keeper, name, argv, self._keeper.folder / "install.log")

    def _write(self, file: Path, text: str) -> None:
        """Write a file in one step, because the server may read it meanwhile. The servers' account owns the file."""
        new = file.with_suffix(".new")
        new.write_text(text)
        if self._account is not None:
            os.chown(new, *self._account)
        new.replace(file)

    def _command(self, name: str, port: int) -> list[str]:
        return [str(self._programs / "postgres"), "-D", str(self._data(name)), "-p", str(port)]

    def _answers(self, name: str, port: int) -> bool:
        try:
            self._admin(port).close()
        except psycopg().OperationalError:
            return False
        return True

    def _start_server(self, name: str) -> None:
        self._recorded.discard(name)
        self._configure(name)
        if name != self.master_name:
            self._write(self._data(name) / "standby.signal", "")
        super()._start_server(name)

    # Replication

    def _configure(self, name: str, *, held: bool = True) -> None:
        """Write the settings that the test has chosen for a server, which reads them at its start and at a reload.

        Args:
            name: the server.
            held: whether the lag applies to the server, and whether it stays stopped if the test has stopped it.
        """
        self._applied.pop(name, None)
        self._edition += 1
        settings = f"{self._settings(name, held=held)}pair.edition = {self._edition}\n"
        self._write(self._data(name) / "replication.conf", settings)

    def _settings(self, name: str, *, held: bool = True) -> str:
        source, delay = "", 0
        if name != self.master_name and self.master_name in self._ports:
            delay = math.ceil(self._lag * 1000) if held else 0
            source = (
                f"host=127.0.0.1 port={self._ports[self.master_name]} user=replication password={self.password}"
                f" application_name={name}"
            )
            if held and name in self._stopped:
                # What has arrived must not be applied when the server is started again, either.
                source, delay = "", FOREVER
        return (
            f"primary_conninfo = '{source}'\nrecovery_min_apply_delay = {delay}\n"
            f"log_statement = {'all' if name in self._recorded else 'none'}\n"
        )

    def _reload(self, name: str) -> None:
        """Let a server that runs read its settings, and wait until all of its processes have been signalled."""
        self._run(name, "SELECT pg_reload_conf()")
        self._until(name, "did not read its settings", lambda: self._shows(name, self._edition))

    def _shows(self, name: str, edition: int) -> bool:
        """Return whether a new session has the given edition of the settings.

        If so, all sessions were signalled, because the postmaster signals its children before it forks for new
        connections.
        """
        with closing(self.admin(name)) as connection:
            row = connection.execute("SELECT current_setting('pair.edition', true)").fetchone()
        return row == (str(edition),)

    def _reconfigure(self, name: str) -> None:
        self._configure(name)
        self._reload(name)

    def _apply(self, name: str, *, held: bool = True) -> None:
        """Let a slave that runs replicate as the test has chosen, and wait until the change is in effect."""
        self._configure(name, held=held)
        self._reload(name)
        if held and name in self._stopped:
            self._wait_for_receiver(name)
        # A pause is confirmed by the process that applies the changes, after it has read the settings. While this
        # process waits, it does not confirm the pause, but it applies nothing either.
        self._run(name, "SELECT pg_wal_replay_pause()")
        self._until(name, "did not pause replication", lambda: self._run(name, PAUSED)[0]["paused"])
        if held and (self._lag or name in self._stopped):
            # Otherwise a server that is killed and started again no longer shows commits that are younger than the new
            # lag. The second checkpoint stores how far the server is, even if the first was only a restart point.
            for _ in range(2):
                self._run(name, "CHECKPOINT")
        if not held or name not in self._stopped:
            self._run(name, "SELECT pg_wal_replay_resume()")
        self._applied[name] = self._settings(name, held=held)

    def _wait_for_receiver(self, name: str) -> None:
        """Wait until a slave receives nothing any more, because a promotion would apply what it has received.

        Replay must not be paused yet, because the process that replays ends the receiver. This process ends it at once,
        but not while it waits for a lag.
        """
        deadline = time.monotonic() + 1
        while self._run(name, "SELECT pid FROM pg_stat_wal_receiver") and time.monotonic() < deadline:
            time.sleep(0.002)

    def _until(self, name: str, lack: str, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN
        while not reached():
            if time.monotonic() > deadline:
                raise PairError(f"the {name} {lack} within {WITHIN:.0f} s; its log is {self._log(name)}")
            time.sleep(0.002)

    def _set_lag(self, name: str) -> None:
        self._apply(name)

    def _stop_replication(self, name: str) -> None:
        self._apply(name)

    def _start_replication(self, name: str) -> None:
        if self._lag or self._applied.get(name) != self._settings(name):
            self._apply(name)
        else:  # as in each reset of a pair; a test may have paused it with a statement of its own
            self._run(name, "SELECT pg_wal_replay_resume()")

    def _introduce(self, name: str) -> None:
        self._apply(name)

    def _master_position(self) -> str:
        asked = "SELECT pg_current_wal_insert_lsn() AS inserted, pg_current_wal_flush_lsn() AS flushed"
        (answer,) = self._run(
            self.master_name, f"{asked}, pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn() AS late"
        )
        if answer["late"]:
            # There is a commit with synchronous_commit=off, or an open transaction. Only what was flushed is sent to
            # slaves. So make another commit behind it, which waits until all of this is flushed.
            self._run(self.master_name, "SELECT pg_logical_emit_message(true, 'replswitch', '')")
            return str(answer["inserted"])
        return str(answer["flushed"])

    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        sql = "SELECT pg_last_wal_replay_lsn() AS reached, pg_last_wal_replay_lsn() >= %s::pg_lsn AS enough"
        try:
            while not (answer := self._run(name, sql, position)[0])["enough"]:
                if time.monotonic() >= deadline:
                    raise self._not_caught_up(name, position, answer["reached"])
                time.sleep(0.005)
        except PairError as error:
            if isinstance(error, NotCaughtUpError) or not self._ends(name):
                raise
            log = "\n".join(self._log(name).read_text(errors="replace").splitlines()[-5:])
            raise NotCaughtUpError(f"{name} has not caught up: its server has ended.\n{log}", server=name) from error

    def _wait_connected(self, name: str, deadline: float) -> None:
        while not self._run(name, "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"):
            if time.monotonic() >= deadline:
                raise PairError(f"{name} receives nothing from its master; its log is {self._log(name)}")
            time.sleep(0.002)

    def _ends(self, name: str) -> bool:
        """Return whether a server has ended or is ending. An ending server first closes its connections."""
        deadline = time.monotonic() + 1
        while self._is_up(name) and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._is_up(name)

    def _not_caught_up(self, name: str, position: str, reached: str) -> NotCaughtUpError:
        (state,) = self._run(
            name,
            "SELECT pg_get_wal_replay_pause_state() AS replay, pg_last_wal_receive_lsn() AS received,"
            " (SELECT status FROM pg_stat_wal_receiver) AS receiver",
        )
        return NotCaughtUpError(
            f"{name} has not caught up: the master is at {position}, {name} at {reached}"
            f" (received: {state['received']}, receiver: {state['receiver'] or 'none'}, replay: {state['replay']},"
            f" lag: {self._lag} s)",
            server=name,
        )

    def _hand_over(self, old: str, new: str, timeout: float) -> None:
        """Shut the old master down, which waits until the slaves have all its writes. Then promote the new master."""
        deadline = time.monotonic() + timeout
        self._apply(new, held=False)
        try:
            self._wait_for(new, self._master_position(), deadline)
            self._finish("pg_ctl", [str(self._programs / "pg_ctl"), "stop", "-D", str(self._data(old)), "-m", "fast"])
            self._wait_for(new, self._last_position(old), deadline + timeout)
        except PairError:
            self.start(old)
            self._apply(new)
            raise
        if not self._run(new, "SELECT pg_promote(true, %s) AS done", int(WITHIN))[0]["done"]:
            raise PairError(f"{new} was not promoted within {WITHIN:.0f} s; its log is {self._log(new)}")
        self._follows[new] = None

    def _last_position(self, name: str) -> str:
        """Return the position behind the last record of a server that was shut down, which is its checkpoint."""
        output = self._keeper.folder / "install.log"
        self._finish("pg_controldata", [str(self._programs / "pg_controldata"), "-D", str(self._data(name))])
        found = re.search(r"Latest checkpoint location: +([0-9A-F]+)/([0-9A-F]+)", output.read_text())
        if found is None:
            raise ServerStartError("pg_controldata has reported no checkpoint.", server=name, log=output.read_text())
        # A slave that has applied the record is at least one byte further.
        return f"{found[1]}/{int(found[2], 16) + 1:X}"
