"""Waits for what happens in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN = 60.0
"""Seconds. There are many, because the machine may be busy."""


def eventually(happens: Callable[[], T], every: float = 0.005) -> T:
    """Wait until a condition is true, and return its value.

    Args:
        happens: the condition.
        every: seconds between two looks.

    Raises:
        AssertionError: it is not true within `WITHIN` seconds. The message has its last value.
    """
    until = time.monotonic() + WITHIN
    while not (found := happens()):
        assert time.monotonic() < until, f"it does not happen within {WITHIN:.0f} s: {found!r}"
        time.sleep(every)
    return found
