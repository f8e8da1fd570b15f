"""Whether the running code's writes make a marker. Django's sessions do not: their rows are read on the master."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_recording: ContextVar[bool] = ContextVar("django_replswitch.recording", default=True)


def is_recording() -> bool:
    """Say whether a write of the running code counts."""
    return _recording.get()


@contextmanager
def unrecorded() -> Iterator[None]:
    """Let the writes of a block make no marker."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)
