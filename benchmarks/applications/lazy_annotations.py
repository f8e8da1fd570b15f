"""Lets packages that rely on Python 3.14's annotations, which are evaluated when they are asked for, run on older ones.

FlaskBB 2.2.0 says that it runs on Python 3.12, and names types in annotations that it imports for type checkers alone.
"""

from __future__ import annotations
import __future__

import sys
from importlib.machinery import PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType


class _Loader(SourceFileLoader):
    """Compiles a module as if it began with ``from __future__ import annotations``."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        flags = __future__.annotations.compiler_flag
        code: CodeType = compile(self.get_data(path), path, "exec", flags=flags, dont_inherit=True)
        return code


class _Finder:
    """Finds the modules of some packages.

    Args:
        packages: their names.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Find a module of them; return None for any other."""
        if name.partition(".")[0] not in self._packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def lazily(*packages: str) -> None:
    """Evaluate the annotations of these packages lazily on every Python. Call it before they are imported."""
    if sys.version_info < (3, 14):
        sys.meta_path.insert(0, _Finder(packages))
