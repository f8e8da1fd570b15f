"""What a forked child must not free: the connections of its parent (S12)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

_kept: Final[list[Any]] = []


def keep_open(raw: Any) -> None:
    """Never free a connection of the parent process, not even when this process ends.

    A driver closes a connection that Python frees. Some drivers then end the parent's session, or remove the socket
    from the parent's event loop. A reference from a module is not enough, because an ending interpreter clears modules,
    in no fixed order. So the reference count is raised, and never lowered again.
    """
    _kept.append(raw)  # enough for interpreters that do not free objects when they end, such as PyPy
    with suppress(ImportError, AttributeError):
        import ctypes  # noqa: PLC0415 - few processes need it

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
