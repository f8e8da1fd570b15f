"""A clean Debian with Python in a folder, and how to enter it."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tools.newcomer.terminal import PROMPT, StepError, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PACKAGES: Final = ("python3", "python3-venv", "make", "git", "ca-certificates")
"""What a newcomer has: Python, and what it takes to get a checkout and to run ``make`` in it."""

KEPT_FOR: Final = 7 * 24 * 3600
"""For how many seconds an image is used again: later, its lists of packages are old."""

BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
PIP_SETTINGS: Final = ("index-url", "extra-index-url", "proxy", "timeout", "trusted-host")
PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

# A file system of its own for what the servers write; everything else is removed with the folder. The mounts are seen
# by this process and its children only, so that removing the folder removes nothing of the machine.
ENTER: Final = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/shm"
mount -t tmpfs tmpfs "$1/tmp"
exec chroot "$@"
"""


class Machine(NamedTuple):
    """What the container takes over from the machine on which it runs.

    Attributes:
        mirror: the Debian mirror.
        sources: lines for ``/etc/apt/sources.list``.
        apt: lines for apt's configuration.
        pip: the settings of pip.
        bundle: the file with the certificates that pip trusts; None for pip's own.
        proxies: environment variables.
    """

    mirror: str
    sources: str
    apt: str
    pip: dict[str, str]
    bundle: str | None
    proxies: dict[str, str]

    @classmethod
    def here(cls, suite: str, environment: Mapping[str, str] = os.environ) -> Machine:
        """Return the settings of this machine."""
        targets = output(
            "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"
        )
        lines = [line.split() for line in targets.splitlines()]
        used = [line for line in lines if line[1].startswith(suite) and "/debian" in line[0]]
        mirrors = [line[0] for line in used if line[1] == suite]
        mirror = mirrors[0] if mirrors else "http://deb.debian.org/debian/"
        pip = pip_settings(environment)
        return cls(
            mirror=mirror,
            sources="".join(f"deb {' '.join(line)}\n" for line in used) or f"deb {mirror} {suite} main\n",
            apt=output(
                "apt-config", "dump", "--no-empty", "--format", '%f "%v";%n',
                "Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date",
            ),
            pip={name: pip[name] for name in PIP_SETTINGS if name in pip},
            bundle=pip.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE"),
            proxies={name: environment[name] for name in PROXIES if name in environment},
        )  # fmt: skip


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of pip, but for folders of this machine, which are not in the container."""
    home = Path(environment.get("HOME", "/"))
    files = configparser.RawConfigParser()
    files.read(["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"])
    found = dict(files["global"]) if files.has_section("global") else {}
    for name, value in environment.items():
        if name.startswith("PIP_"):
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    for name in ("index-url", "extra-index-url"):
        found[name] = " ".join(each for each in found.get(name, "").split() if not each.startswith(("file:", "/")))
    return {name: value for name, value in found.items() if value}


def output(*argv: str) -> str:
    """Run a command, and return what it prints; nothing if the machine does not have it."""
    if shutil.which(argv[0]) is None:
        return ""
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


class Image:
    """An archive with a clean Debian, from which each step gets a folder of its own.

    Args:
        suite: the name of Debian's release.
        cache: where the archive is kept.
        log: a file for what the programs print that make the archive.
        say: prints a line for the user.
    """

    def __init__(self, suite: str, cache: Path, log: Path, say: Callable[[str], None]) -> None:
        self.suite = suite
        self.machine = Machine.here(suite)
        self._cache = cache
        self._log = log
        self._say = say
        key = hashlib.sha256(repr((PACKAGES, self.machine)).encode()).hexdigest()[:8]
        self._archive = cache / f"{suite}-{key}.tar.gz"

    def make(self, *, fresh: bool = False) -> None:
        """Make the archive, unless there is one of this week.

        Args:
            fresh: make a new one in any case.

        Raises:
            StepError: this did not work.
        """
        if not fresh and self._archive.exists() and time.time() - self._archive.stat().st_mtime < KEPT_FOR:
            self._say(f"The image is {self._archive}, made on {time.ctime(self._archive.stat().st_mtime)}")
            return
        self._say(f"Making an image of Debian {self.suite} with {', '.join(PACKAGES)} (a few minutes)")
        self._cache.mkdir(parents=True, exist_ok=True)
        (self._cache / "packages").mkdir(exist_ok=True)
        with self._folder() as root:
            self._run(
                "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
                f"--cache-dir={self._cache / 'packages'}", self.suite, str(root), self.machine.mirror,
            )  # fmt: skip
            self._settle(root)
            self._say("Fetching the lists of packages")
            self._run(*enter(root), "/usr/bin/apt-get", "update")
            self._run(*enter(root), "/usr/bin/apt-get", "clean")
            self._say("Packing the image")
            part = self._archive.with_suffix(".part")
            self._run("tar", "--one-file-system", "-C", str(root), "-czf", str(part), ".")
            part.replace(self._archive)

    @contextmanager
    def container(self, checkout: Path) -> Iterator[Container]:
        """Unpack a container with a clone of the checkout in root's home. Remove it at the end."""
        with self._folder() as root:
            self._run("tar", "-C", str(root), "-xzf", str(self._archive))
            clone = root / "root" / "replswitch"
            self._run("git", "clone", "--quiet", "--no-hardlinks", str(checkout), str(clone))
            yield Container(root, Path("/root/replswitch"), self.machine.proxies)

    def _settle(self, root: Path) -> None:
        """Take over the settings of the machine."""
        etc = root / "etc"
        (etc / "apt" / "sources.list").write_text(self.machine.sources)
        (etc / "apt" / "apt.conf.d" / "99machine").write_text(self.machine.apt)
        pip = dict(self.machine.pip)
        if self.machine.bundle:
            shutil.copy(self.machine.bundle, root / BUNDLE[1:])
            pip["cert"] = BUNDLE
        if pip:
            lines = "".join(f"{name} = {value}\n" for name, value in pip.items())
            (etc / "pip.conf").write_text(f"[global]\n{lines}")
        shutil.copy("/etc/resolv.conf", etc / "resolv.conf")
        (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="root-", dir=self._cache))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _run(self, *argv: str) -> None:
        with self._log.open("a") as log:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise StepError(f"{' '.join(argv)} has failed: see {self._log}")


class Container(NamedTuple):
    """A clean Debian in a folder.

    Attributes:
        root: the folder.
        checkout: where the clone is, as seen from inside.
        environment: more variables for its shells.
    """

    root: Path
    checkout: Path
    environment: dict[str, str]

    def inside(self, path: Path) -> Path:
        """Return where a file of the container is on the machine."""
        return self.root / path.relative_to("/")

    def terminal(self, folder: Path, log: Path, **environment: str) -> Terminal:
        """Open a terminal in a folder of the container."""
        variables = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PS1": PROMPT,
            "TERM": "dumb",
            **self.environment,
            **environment,
        }
        start = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        shell = [
            "/usr/bin/env",
            f"--chdir={folder}",
            "setsid",
            "--ctty",
            "--wait",
            "bash",
            "--noprofile",
            "--norc",
            "-i",
        ]
        return Terminal([*enter(self.root), *start, *shell], log)


def enter(root: Path) -> list[str]:
    """Return the beginning of a command that runs inside the folder, with processes and mounts of its own."""
    return ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", str(root)]
