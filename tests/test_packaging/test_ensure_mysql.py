"""tools/ensure-mysql, on machines that have MySQL, can fetch it or cannot; what is fetched is a stand-in."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from replswitch.testing.launch import SBIN

TOOL = Path(__file__).parents[2] / "tools" / "ensure-mysql"
MYSQL = "mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))"
MARIADB = "mysqld  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)"
MIRROR = "http://mirror.test/debian/"

Run = Callable[..., subprocess.CompletedProcess[str]]
Ensure = Callable[..., subprocess.CompletedProcess[str]]


def put(file: Path, body: str) -> Path:
    """Make a command."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of the tool for its downloads."""
    return tmp_path / "cache" / "replswitch"


@pytest.fixture
def ensure(run: Run, cache: Path) -> Ensure:
    """Run the tool."""
    return lambda *arguments, **more: run("ensure-mysql", *arguments, XDG_CACHE_HOME=str(cache.parent), **more)


@pytest.fixture
def debian(machine: Path, tmp_path: Path) -> Path:
    """A Debian: its apt-get knows a mirror, and what it fetches has a mysqld and a loader that prints a version."""
    for name in ("cat", "chmod", "cp", "mkdir", "mv"):
        (machine / name).symlink_to(shutil.which(name) or "")
    put(
        machine / "apt-get",
        f"""
        case "$*" in
        indextargets*) echo {MIRROR}; echo http://mirror.test/debian-security/ ;;
        *update) cp "${{2%/*}}/sources.list" "{tmp_path}/sources.list" ;;
        *mysql-server-core) : > "${{2%/*}}/cache/archives/mysql-server-core.deb" ;;
        esac
        """,
    )
    put(tmp_path / "loader", f"echo '{MYSQL}'")
    put(
        machine / "dpkg-deb",
        f"""
        mkdir -p "$3/usr/sbin" "$3/usr/lib/cpu-linux-gnu/perl5" "$3/usr/share/mysql" "$3/usr/share/doc"
        : > "$3/usr/sbin/mysqld"
        cp "{tmp_path}/loader" "$3/usr/lib/cpu-linux-gnu/ld-linux-cpu.so.2"
        """,
    )
    return machine


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_ensure_mysql_does_nothing_if_mysqld_is_in_the_path(machine: Path, ensure: Ensure, cache: Path) -> None:
    put(machine / "mysqld", f"echo '{MYSQL}'")
    put(machine / "apt-get", ": > called")
    done = ensure()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (machine.parent / "called").exists()
    assert not cache.exists()


def test_ensure_mysql_searches_the_folders_that_the_tests_search() -> None:
    assert f"${{SBIN-{':'.join(SBIN)}}}\n" in TOOL.read_text()


def test_ensure_mysql_downloads_once_from_the_mirror_of_apt(
    debian: Path, ensure: Ensure, cache: Path, tmp_path: Path
) -> None:
    put(debian / "mysqld", f"echo '{MARIADB}'")  # MariaDB's other name
    done = ensure(CI="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert f"] {MIRROR} sid main\n" in (tmp_path / "sources.list").read_text()
    assert files(cache) == {"mysql/mysqld", "mysql/usr/sbin/mysqld", "mysql/usr/lib/cpu-linux-gnu/ld-linux-cpu.so.2"}
    assert (
        subprocess.run([cache / "mysql" / "mysqld"], capture_output=True, text=True, check=True).stdout == f"{MYSQL}\n"
    )

    again = ensure()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("ci", ["", "false", "true", "1"])
def test_ensure_mysql_that_fails_prints_the_reason_and_stops_in_ci_only(machine: Path, ensure: Ensure, ci: str) -> None:
    put(machine / "mysqld", f"echo '{MARIADB}'")
    done = ensure(CI=ci)
    assert done.returncode == (ci in {"true", "1"})
    assert done.stdout == ""
    assert done.stderr == (
        "tools/ensure-mysql: no MySQL server for the tests: it is not in the PATH, and only Debian's apt-get could"
        " fetch it\n"
    )


def test_ensure_mysql_on_another_distribution_prints_the_reason(debian: Path, ensure: Ensure) -> None:
    put(debian / "apt-get", "echo http://mirror.test/ubuntu/")
    done = ensure(CI="1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get uses no mirror of Debian" in done.stderr


@pytest.mark.parametrize(
    ("apt_get", "told"),
    [
        ('echo "E: no route"; echo "E: old lists"; exit 100', "apt-get says: E: no route"),
        ("kill -TERM $PPID", ""),
    ],
    ids=["the download fails", "the download is stopped"],
)
def test_ensure_mysql_removes_a_partial_download(
    debian: Path, ensure: Ensure, cache: Path, apt_get: str, told: str
) -> None:
    (debian / "apt-get").rename(debian / "real-apt-get")
    put(debian / "apt-get", f'case "$*" in *mysql-server-core) {apt_get} ;; esac; exec real-apt-get "$@"')
    done = ensure(CI="1")
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == bool(told)
    assert list(cache.iterdir()) == []


def test_ensure_mysql_removes_a_server_that_does_not_run(
    debian: Path, ensure: Ensure, cache: Path, tmp_path: Path
) -> None:
    put(tmp_path / "loader", "exit 127")
    done = ensure(CI="1")
    assert done.returncode == 1
    assert "does not run here" in done.stderr
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("whole", [True, False], ids=["that runs", "that does not run"])
def test_ensure_mysql_keeps_a_server_that_another_process_downloaded_meanwhile(
    debian: Path, ensure: Ensure, cache: Path, tmp_path: Path, whole: bool
) -> None:
    theirs = put(tmp_path / "theirs", f"echo '{MYSQL}'" if whole else "exit 127").read_text()
    (debian / "dpkg-deb").rename(debian / "real-dpkg-deb")
    put(
        debian / "dpkg-deb",
        f'mkdir -p {cache}/mysql; cp {tmp_path}/theirs {cache}/mysql/mysqld; exec real-dpkg-deb "$@"',
    )
    done = ensure(CI="1")
    assert done.returncode == (not whole)
    assert ("remove it" in done.stderr) == (not whole)
    assert (cache / "mysql" / "mysqld").read_text() == theirs
    assert files(cache) == {"mysql/mysqld"}


def test_help_names_the_folder_of_the_download(ensure: Ensure, machine: Path, cache: Path) -> None:
    (machine / "cat").symlink_to(shutil.which("cat") or "")
    assert f"into {cache}/mysql" in ensure("--help").stdout
    done = ensure("--halp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
