"""Django's sdist, in which its tests are; wheels do not carry them."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

MISSING = 3
"""The script's exit code where this machine lacks what it needs."""


class MissingError(Exception):
    """Something that the script needs is not on this machine; the message says what, and what to do."""


def default_cache() -> Path:
    """Return the folder that keeps sdists, outside of the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "replswitch"


def tests_of_django(cache: Path) -> Path:
    """Return the folder of Django's tests, of the version that is installed.

    It is downloaded if the cache does not have it, checked, and only then put into the cache.

    Raises:
        MissingError: there is no Django, or its sdist is not available.
    """
    django = installed()
    folder = cache / f"django-{django.version}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"django-{django.version}-", dir=cache) as temporary:
            unpacked = _unpack(_download(django.version, Path(temporary)))
            check(unpacked, django)
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.exists():  # else another run was faster
                    raise
    return folder / "tests"


def installed() -> Distribution:
    """Return what is installed of Django.

    Raises:
        MissingError: nothing.
    """
    try:
        return distribution("Django")
    except ModuleNotFoundError as error:
        raise MissingError("Django is not installed: pip install 'replswitch[django]'") from error


def _download(version: str, folder: Path) -> Path:
    requirement = f"Django=={version}"
    # pip compares the archive with the index's hash. It may take wheels of what it builds the metadata with.
    options = ["--quiet", "--no-deps", "--no-binary=Django", "--no-cache-dir", "--retries=1", f"--dest={folder}"]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        told = (done.stderr.strip() or f"pip downloaded {len(archives)} archives").splitlines()[-1]
        raise MissingError(f"the sdist of {requirement}, in which Django's tests are, cannot be downloaded: {told}")
    return archives[0]


def _unpack(archive: Path) -> Path:
    folder = archive.parent / "unpacked"
    folder.mkdir()
    # Python unpacks safely only from 3.11.4 on, and Debian 12 has 3.11.2.
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
    (unpacked,) = folder.iterdir()
    return unpacked


def check(sdist: Path, django: Distribution) -> None:
    """See to it that an sdist has tests, and that its Django is the installed one, file by file.

    Raises:
        MissingError: it has none, or is not.
    """
    if not (sdist / "tests" / "runtests.py").is_file():
        raise MissingError(f"{sdist.name} has no tests/runtests.py")
    compared = 0
    for file in django.files or ():
        if file.parts[0] != "django" or file.suffix != ".py" or file.hash is None:
            continue
        there = sdist / file
        digest = hashlib.new(file.hash.mode, there.read_bytes()).digest() if there.is_file() else b""
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            raise MissingError(f"{file} of the installed Django {django.version} is not the one in its sdist")
        compared += 1
    if not compared:
        raise MissingError(f"Django {django.version} was not installed by pip, so nothing tells which sdist is its own")
