"""Nothing is left behind, whatever happens to the process that started a pair."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from replswitch.testing import MariaDBPair, PairError, ServerStartError, launch
from replswitch.testing.kept import LONGEST_BASE, Kept

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Script = Callable[[str], subprocess.Popen[str]]
    Gone = Callable[[Path], bool]

START_TWO_PAIRS = """
import os, signal, sys, time
from contextlib import closing
from pathlib import Path
from replswitch.testing import MariaDBPair, PairError, SQLitePair

mariadb, sqlite = MariaDBPair(), SQLitePair()
for pair in (mariadb, sqlite):
    pair.start()
with closing(mariadb.connect("slave")) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT @@datadir")
    print(Path(cursor.fetchone()[0]).parent, flush=True)
print(Path(sqlite.master["database"]).parent, flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def two_folders(process: subprocess.Popen[str], left: Callable[[Path], list[str]]) -> list[Path]:
    """The folders that the script has made, after a look at whether its servers run."""
    folders = [Path(line(process)), Path(line(process))]
    assert all(folder.is_dir() for folder in folders)
    assert len([command for command in left(folders[0]) if "mariadbd" in command]) == 2
    return folders


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.close()


def test_a_killed_test_run_leaves_no_server_and_no_folder_although_its_child_lives(
    script: Script, gone: Gone, left: Callable[[Path], list[str]]
) -> None:
    process = script(START_TWO_PAIRS + "if os.fork() == 0: print('child', flush=True)\nsys.stdin.read()")
    folders = two_folders(process, left)
    assert line(process) == "child"
    process.kill()
    process.wait()
    assert all(gone(folder) for folder in folders)


def test_signals_of_the_terminal_do_not_reach_the_servers(
    script: Script, gone: Gone, left: Callable[[Path], list[str]]
) -> None:
    process = script(
        START_TWO_PAIRS
        + """
signal.signal(signal.SIGQUIT, lambda *_: None)
try:
    print("sleeping", flush=True)
    while True:  # a signal that comes just before a sleep is noticed after it
        time.sleep(0.1)
except KeyboardInterrupt:
    for pair in (mariadb, sqlite):
        pair.connect("slave").close()
        pair.wait_caught_up(timeout=60)
        pair.close()
    print("all there")
"""
    )
    folders = two_folders(process, left)
    assert line(process) == "sleeping"
    for key in (signal.SIGQUIT, signal.SIGINT):  # Ctrl-\\ and Ctrl-C; the script is the leader of its group
        os.killpg(process.pid, key)
    assert line(process) == "all there"
    assert process.wait(timeout=60) == 0
    assert all(gone(folder) for folder in folders)


def test_a_forked_child_cannot_change_a_pair_and_a_pair_that_is_not_closed_ends_with_its_process(
    script: Script, gone: Gone, left: Callable[[Path], list[str]]
) -> None:
    process = script(
        START_TWO_PAIRS
        + """
if os.fork() == 0:
    for pair in (mariadb, sqlite):
        pair.close()
        pair.connect("slave").close()
        try:
            pair.kill("slave")
        except PairError as error:
            print(error, flush=True)
    sys.exit()
os.wait()
for pair in (mariadb, sqlite):
    pair.connect("slave").close()
    pair.reset()
    pair.kill("slave")
    pair.start("slave")
print("all there")
"""
    )
    folders = two_folders(process, left)
    assert line(process) == line(process) == "only the process that has started this pair can change it"
    assert line(process) == "all there"
    assert process.wait(timeout=60) == 0
    assert all(gone(folder) for folder in folders)


def test_the_servers_end_if_the_process_that_keeps_them_is_killed(
    gone: Gone, left: Callable[[Path], list[str]]
) -> None:
    pair = MariaDBPair()
    pair.start()
    assert pair._kept is not None
    folder = pair._kept.folder
    assert left(folder)
    pair._kept._process.kill()
    pair._kept._process.wait()
    for act in (pair.wait_caught_up, pair.reset, lambda: pair.kill("slave")):
        with pytest.raises(PairError, match=r"the process that keeps the servers is gone.*exit code is -9"):
            act()
    pair.close()
    assert gone(folder)


def test_a_process_that_keeps_servers_removes_its_folder_on_sigterm(kept: Kept, gone: Gone) -> None:
    kept.start("server", ["sh", "-c", f": {kept.folder}; sleep 60"], kept.folder / "log")
    kept._process.terminate()
    assert gone(kept.folder)


def test_a_server_process_that_is_not_ready_in_time_is_killed(
    kept: Kept, left: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = kept.folder / "log"
    passed = 0.0

    def ready() -> bool:
        nonlocal passed
        if log.read_text():
            passed = launch.WITHIN
        return False

    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: passed, sleep=time.sleep))
    argv = ["sh", "-c", f"echo I am slow in {kept.folder}; sleep 60"]
    with pytest.raises(ServerStartError, match=r"slow: sh was not ready within 60 s\.\n.*\nI am slow in"):
        launch.run(kept, "slow", argv, log, ready=ready)
    assert kept.exit_code("slow") == -signal.SIGKILL
    assert not any("sleep" in command for command in left(kept.folder))


def test_the_error_of_a_server_process_that_fails_shows_the_end_of_its_log(kept: Kept) -> None:
    log = kept.folder / "log"
    with pytest.raises(ServerStartError) as raised:
        launch.run(kept, "wrong", ["sh", "-c", "seq 1000; exit 3"], log)
    assert "wrong: sh ended with exit code 3." in str(raised.value)
    assert raised.value.log.splitlines() == [str(number) for number in range(981, 1001)]
    with pytest.raises(ServerStartError, match=r"exit code 3\. It wrote no log\."):
        launch.run(kept, "silent", ["sh", "-c", "exit 3"], log)


def test_a_server_program_that_does_not_exist_is_named_in_the_error(kept: Kept) -> None:
    with pytest.raises(PairError, match="No such file or directory: 'nonsense'"):
        kept.start("server", ["nonsense"], kept.folder / "log")


def test_a_socket_fits_below_the_folder_although_tmpdir_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / ("x" * LONGEST_BASE)
    base.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with closing(Kept()) as kept:
        assert len(str(kept.folder / "slave99.sock")) < 100
        assert kept.folder.is_dir()
    assert not kept.folder.exists()
