"""The project's own commands: what they say and do on machines where something is missing."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from replswitch.testing.launch import SBIN

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(folder: Path, name: str, body: str) -> None:
    """Put a command into a folder."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


SERVER = ("mariadbd", "mariadb-install-db", "my_print_defaults")


def test_ensure_mariadb_does_nothing_if_mariadb_is_installed(machine: Path, run: Run) -> None:
    for name in SERVER:
        command(machine, name, "")
    done = run("ensure-mariadb")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ensure_mariadb_searches_the_folders_that_the_tests_search() -> None:
    assert f"${{SBIN-{':'.join(SBIN)}}}\n" in (TOOLS / "ensure-mariadb").read_text()


@pytest.mark.parametrize("apt", [True, False], ids=["with apt-get", "without apt-get"])
def test_ensure_mariadb_without_rights_names_what_to_install(machine: Path, run: Run, apt: bool) -> None:
    command(machine, "id", "echo 1000")
    command(machine, "sudo", "exit 1")
    if apt:
        command(machine, "apt-get", ": > called")
    done = run("ensure-mariadb")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "apt-get install mariadb-server-core mariadb-client-core" in done.stderr
    assert not (machine.parent / "called").exists()


@pytest.mark.parametrize("user", ["0", "1000"], ids=["root", "sudo"])
def test_ensure_mariadb_with_rights_installs_the_programs_and_removes_nothing(
    machine: Path, run: Run, user: str
) -> None:
    command(machine, "id", f"echo {user}")
    command(machine, "sudo", ': > sudo-called; shift; exec "$@"')
    made = "".join(f"; ln -s $(command -v sh) {machine}/{name}" for name in SERVER)
    (machine / "ln").symlink_to(shutil.which("ln") or "")
    command(machine, "apt-get", f'echo "$DEBIAN_FRONTEND $@" >> called{made}')
    done = run("ensure-mariadb")
    assert done.returncode == 0, done.stderr
    called = (machine.parent / "called").read_text().splitlines()
    assert [line.split()[:2] for line in called] == [["noninteractive", "install"]]
    assert "--no-remove" in called[0]
    assert called[0].endswith(" mariadb-server-core mariadb-client-core")
    assert (machine.parent / "sudo-called").exists() == (user != "0")


def test_apt_install_updates_outdated_package_lists_once(machine: Path, run: Run) -> None:
    command(machine, "id", "echo 0")
    command(machine, "apt-get", 'echo $1 >> called; echo "E: no such package"; exit 100')
    done = run("ensure-mariadb")
    assert (machine.parent / "called").read_text().split() == ["install", "update", "install"]
    assert done.returncode == 1
    assert done.stderr.startswith("E: no such package\ntools/ensure-mariadb: ")


@pytest.mark.parametrize(
    ("tool", "packages"), [("ensure-pgbouncer", "pgbouncer"), ("ensure-chromium", "chromium chromium-driver")]
)
def test_a_server_or_browser_of_some_tests_is_installed_or_else_named_in_one_line(
    machine: Path, run: Run, tool: str, packages: str
) -> None:
    command(machine, "id", "echo 1000")
    done = run(tool)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1)
    assert f"apt-get install {packages})" in done.stderr

    command(machine, "id", "echo 0")
    (machine / "ln").symlink_to(shutil.which("ln") or "")
    programs = ("pgbouncer", "chromium", "chromedriver")
    made = "; ".join(f"ln -s $(command -v sh) {machine}/{name}" for name in programs)
    command(machine, "apt-get", f'echo "$@" >> called; {made}')
    assert run(tool).stderr == ""
    assert run(tool).stdout == "", "it is installed again"
    (called,) = (machine.parent / "called").read_text().splitlines()
    assert called.endswith(f" {packages}")


@pytest.fixture
def environment_of(machine: Path) -> Callable[..., str]:
    """Make the Python of an environment, and say how its pip does.

    It has mysqlclient if ``installed`` exists. Its pip creates that file, unless it is called without an index.
    """

    def make(*, headers: str = "/opt/python/include", pip_works: bool = True) -> str:
        command(
            machine,
            "python",
            f"""
            case "$*" in
            "-m pip"*) echo "$*" >> pip-called; {"true" if pip_works else "exit 1"}
                case "$*" in *--no-index*) ;; *) : > installed ;; esac; test -e installed ;;
            *MySQLdb*) test -e installed ;;
            *get_path*) echo {headers} ;;
            *CC*) echo compiler ;;
            *version_info*) echo python3.11-dev ;;
            *) exec {sys.executable} "$@" ;;
            esac""",
        )
        return "python"

    return make


def compiler(machine: Path) -> str:
    """Return what makes a compiler and a client library when it is run by a shell."""
    made = ((machine / "compiler", "true"), (machine / "pkg-config", "true"))
    return "; ".join(f"printf '#!/bin/sh\\n{body}\\n' > {file}; chmod +x {file}" for file, body in made)


def test_ensure_mysqlclient_does_nothing_if_mysqlclient_is_installed(
    run: Run, environment_of: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "installed").touch()
    done = run("ensure-mysqlclient", environment_of())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "--no-index" in (tmp_path / "pip-called").read_text()


@pytest.mark.parametrize(
    "headers",
    ["/usr/include/python3.11", "/opt/python/include"],
    ids=["for Python of the system", "for another Python"],
)
def test_ensure_mysqlclient_installs_the_compiler_and_headers(
    machine: Path, run: Run, environment_of: Callable[..., str], headers: str
) -> None:
    (machine / "chmod").symlink_to(shutil.which("chmod") or "")
    command(machine, "id", "echo 0")
    command(machine, "apt-get", f'echo "$@" >> called; {compiler(machine)}')
    done = run("ensure-mysqlclient", environment_of(headers=headers), CI="true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Installing mysqlclient>=2.2.1 (compiled)\n")
    packages = " gcc libc6-dev pkg-config libmariadb-dev" + " python3.11-dev" * headers.startswith("/usr")
    assert (machine.parent / "called").read_text().endswith(f"{packages}\n")


@pytest.mark.parametrize("ci", ["", "false", "true", "1"])
def test_ensure_mysqlclient_that_fails_prints_one_line_and_stops_in_ci_only(
    machine: Path, run: Run, environment_of: Callable[..., str], ci: str
) -> None:
    command(machine, "id", "echo 1000")
    done = run("ensure-mysqlclient", environment_of(), CI=ci)
    assert done.returncode == (ci in {"true", "1"})
    assert done.stderr.count("\n") == 1
    assert "apt-get install gcc libc6-dev pkg-config libmariadb-dev)" in done.stderr


def test_ensure_mysqlclient_reports_a_failed_compilation_in_one_line(
    machine: Path, run: Run, environment_of: Callable[..., str]
) -> None:
    subprocess.run(compiler(machine), shell=True, check=True)
    done = run("ensure-mysqlclient", environment_of(pip_works=False), "mysqlclient==2.2.1", CI="1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "see: python -m pip install 'mysqlclient==2.2.1'" in done.stderr


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_ensure_venv_refuses_a_python_that_is_too_old(machine: Path, run: Run, version: str) -> None:
    command(machine, "python3", f"echo {version}")
    done = run("ensure-venv", "python3", "venv")
    assert done.returncode == 1
    assert done.stderr == (
        f"tools/ensure-venv: python3 is Python {version}, and replswitch needs 3.11 or newer:"
        " name another one with PYTHON=...\n"
    )


@pytest.mark.parametrize("broken", [True, False], ids=["python3 fails", "python3 is missing"])
def test_ensure_venv_refuses_a_python_that_does_not_run(machine: Path, run: Run, broken: bool) -> None:
    if broken:
        command(machine, "python3", "echo pyenv: command not found >&2; exit 127")
    done = run("ensure-venv", "python3", "venv")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "python3 does not run" in done.stderr


@pytest.mark.parametrize("end", ["exit 1", "kill -TERM $PPID"], ids=["the creation fails", "the creation is stopped"])
def test_ensure_venv_removes_a_partial_environment(machine: Path, run: Run, tmp_path: Path, end: str) -> None:
    (machine / "mkdir").symlink_to(shutil.which("mkdir") or "")
    command(machine, "python3", f'[ "$1" = -c ] && echo 3.11 && exit\nmkdir -p venv\n{end}')
    done = run("ensure-venv", "python3", "venv")
    assert done.returncode == 1
    assert not (tmp_path / "venv").exists()
    if end == "exit 1":
        assert done.stderr.count("\n") == 1
        assert "apt-get install python3.11-venv" in done.stderr


def test_ensure_venv_keeps_an_existing_environment(machine: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    command(tmp_path / "venv" / "bin", "python", "echo 3.12")
    command(machine, "python3", "echo 3.11")
    assert run("ensure-venv", "python3", "venv").returncode == 0
    done = run("ensure-venv", "python3", "venv", "exact")
    assert done.returncode == 1
    assert done.stderr == (
        "tools/ensure-venv: venv is Python 3.12 and python3 is 3.11: remove venv, or set VENV=another-folder\n"
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "--silent"], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY:"))
    inner = {"venv", "mariadb", "mysqlclient", "pgbouncer", "redis", "chromium", "FORCE"}
    assert listed == set(phony.split()[1:]) - inner


def test_ensure_venv_accepts_the_python_that_runs_the_tests(run: Run, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    command(tmp_path / "venv" / "bin", "python", f'exec {sys.executable} "$@"')
    done = run("ensure-venv", sys.executable, "venv", "exact")
    assert done.returncode == 0, done.stderr
