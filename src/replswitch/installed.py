"""Tell libraries from the application, by the metadata of the installed distributions."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution

#: The packages of replswitch itself.
OWN: Final = frozenset({"replswitch", "django_replswitch", "flask_replswitch"})

_REQUIRES_US: Final = re.compile(r"^Requires-Dist:\s*replswitch\b", re.IGNORECASE | re.MULTILINE)


def is_library(package: str, file: str) -> bool:
    """Return whether a file belongs to Python, to replswitch, or to an installed library.

    An application may be installed, too: as a distribution that requires replswitch, or as a package without a
    distribution. The files of an application in editable mode are not in the folder of its distribution.

    Args:
        package: the name of the top-level package of the file.
        file: the path of the file.
    """
    if package in OWN or package in sys.stdlib_module_names:
        return True
    return any(file.startswith(folder) for folder in _folders_of_libraries().get(package, ()))


@cache
def _folders_of_libraries() -> dict[str, set[str]]:
    """Return the folders with a top-level package of a library, by the name of the package. This takes about 50 ms."""
    libraries: dict[str, set[str]] = {}
    applications: set[tuple[str, str]] = set()
    for distribution in distributions():
        with suppress(Exception):  # its metadata is incomplete
            if _is_source(distribution):
                continue
            folder = f"{Path(str(distribution.locate_file(''))).absolute()}{os.sep}"
            requires_us = _REQUIRES_US.search(_text(distribution, "METADATA", "PKG-INFO")) is not None
            for package in _packages(distribution):
                if requires_us:
                    applications.add((package, folder))
                else:
                    libraries.setdefault(package, set()).add(folder)
    for package, folder in applications:  # a namespace may contain packages of both
        libraries.get(package, set()).discard(folder)
    return libraries


def _is_source(distribution: Distribution) -> bool:
    """Return whether this is not an installed distribution, but the source of one, where setuptools leaves metadata."""
    return bool(_text(distribution, "SOURCES.txt")) and not _text(distribution, "RECORD", "installed-files.txt")


def _packages(distribution: Distribution) -> Iterator[str]:
    """Yield the names of a distribution's top-level packages and modules."""
    names = _text(distribution, "top_level.txt").split()
    # not `Distribution.files`, which takes much longer
    paths = names or [line.partition(",")[0].partition("/")[0] for line in _text(distribution, "RECORD").splitlines()]
    for path in set(paths):
        yield path.partition(".")[0]


def _text(distribution: Distribution, *names: str) -> str:
    """Return the text of the first of these files that the metadata has; empty if it has none."""
    return next(filter(None, map(distribution.read_text, names)), "")
